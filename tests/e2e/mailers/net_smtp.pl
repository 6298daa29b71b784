# Perl's Net::SMTP sends a file: HOST PORT none|starttls|implicit MECHANISM LOGIN PASSWORD CA FROM TO FILE
use strict;
use warnings;
use Authen::SASL qw(Perl);
use Net::SMTP;

my ($host, $port, $tls, $mechanism, $login, $password, $ca, $from, $to, $file) = @ARGV;
my @trust = (SSL_ca_file => $ca, SSL_verify_mode => 1);
my $smtp = Net::SMTP->new($host, Port => $port, Hello => 'perl', Timeout => 60, SSL => $tls eq 'implicit', @trust)
    or die "cannot connect: $@\n";

sub must {
    my ($done, $what) = @_;
    $done or die "$what: " . $smtp->code . ' ' . $smtp->message . "\n";
}

must($smtp->starttls(@trust), 'STARTTLS') if $tls eq 'starttls';
my $sasl = Authen::SASL->new(
    mechanism => $mechanism,
    callback => {user => $login, authname => $login, pass => $password});
must($smtp->auth($sasl), 'AUTH');
must($smtp->mail($from), 'MAIL');
must($smtp->to($to), 'RCPT');
must($smtp->data, 'DATA');
open(my $scan, '<:raw', $file) or die "$file: $!\n";
while (read($scan, my $block, 50_000)) {
    must($smtp->datasend($block), 'datasend');
}
must($smtp->dataend, 'the end of the data');
must($smtp->quit, 'QUIT');
