"""The mail libraries of Node and Java, which old and new applications are built on. Java takes 50 MB to fetch."""

import itertools
import subprocess
import unittest

from clients import LOGIN, MAILERS, MECHANISMS, MODES, Clients
from harness import PRINTER, RECIPIENT, needs_program
from packages import Unavailable, unpacked

LABELS = "full"
NODE_PACKAGES = ("node-nodemailer",)
JAVA_PACKAGES = ("openjdk-17-jre-headless", "libeclipse-jdt-core-java", "libjakarta-mail-java",
                 "libjakarta-activation-java")
COMPILER = "org.eclipse.jdt.internal.compiler.batch.Main"  # needs no development kit
STORE_PASSWORD = "not-a-secret"
SECURE_PORT = 2526


class Libraries(Clients):
    """TLS from the first octet has a listener of its own here: a JVM that has just started says its hello too late
    for one that also greets in the clear."""

    def configure(self, outtray):
        outtray.set("listener secure", address=outtray.address, port=SECURE_PORT, tls="implicit", auth="required")

    def place(self, tls):
        return self.outtray.address, SECURE_PORT if tls == "implicit" else self.outtray.port

    def fetched(self, name, packages):
        try:
            return unpacked(name, packages)
        except Unavailable as error:
            self.skipTest(f"no {name}: {error}")

    @needs_program("node")
    def test_nodemailer(self):
        root = self.fetched("nodemailer", NODE_PACKAGES)
        for tls, mechanism in itertools.product(MODES, MECHANISMS):
            with self.subTest(tls=tls, mechanism=mechanism):
                self.program(["env", f"NODE_PATH={root}/usr/share/nodejs", "node", MAILERS / "nodemailer.js",
                              *self.place(tls), tls, mechanism, LOGIN, self.password,
                              self.authority, PRINTER, RECIPIENT, self.scan])
                self.assert_scan(tls)

    def test_jakarta_mail(self):
        root = self.fetched("java", JAVA_PACKAGES)
        programs = next(root.glob("usr/lib/jvm/java-17-openjdk-*/bin"))
        jars = ":".join(str(root / "usr/share/java" / name) for name in ("jakarta-mail.jar", "jakarta-activation.jar"))
        classes, store = self.directory / "classes", self.directory / "authorities.p12"
        self.program([programs / "java", "-cp", root / "usr/share/java/eclipse-jdt-core.jar", COMPILER, "-17",
                      "-proc:none", "-cp", jars, "-d", classes, MAILERS / "JakartaMail.java"])
        subprocess.run([programs / "keytool", "-importcert", "-noprompt", "-alias", "relay", "-file", self.authority,
                        "-keystore", store, "-storepass", STORE_PASSWORD], check=True, capture_output=True)
        for tls, mechanism in itertools.product(MODES, MECHANISMS):
            with self.subTest(tls=tls, mechanism=mechanism):
                self.program([programs / "java", f"-Djavax.net.ssl.trustStore={store}",
                              f"-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}", "-cp", f"{classes}:{jars}",
                              "JakartaMail", *self.place(tls), tls, mechanism, LOGIN,
                              self.password, PRINTER, RECIPIENT, self.scan])
                self.assert_scan(tls)


if __name__ == "__main__":
    unittest.main()
