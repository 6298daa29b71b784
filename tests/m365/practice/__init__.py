"""A practice upstream: a stand-in for smtp.office365.com that runs on the loopback interface.

server    the whole: listening sockets, sessions, what tests call
session   one connection: commands, replies, sign-in, the transaction
wire      a socket with line input, gathered output, STARTTLS and ways to end
message   mail data as it arrives: the final dot, dot-unstuffing, facts about the octets
store     messages on disk with the facts of their session
script    rules that replace replies, delay, hang or drop, and the reply catalogue
limits    the limits of a mailbox and the ledger that watches them
accounts  mailboxes and their sign-in
control   the control socket: its server and its client
certificate  a small CA and server certificates, good and bad
counters  what happened, counted; the event log
"""
