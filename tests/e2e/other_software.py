"""Another program that is signed in to the same mailbox and keeps its connection."""

import smtplib
import ssl

from harness import PATIENCE


class OtherSoftware(smtplib.SMTP):
    """Holds one connection of the mailbox from `with` to its end."""

    def __init__(self, practice, mailbox, password):
        super().__init__("localhost", practice.port, timeout=PATIENCE)
        self.starttls(context=ssl.create_default_context(cafile=str(practice.ca)))
        self.login(mailbox, password)
