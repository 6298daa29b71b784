import jakarta.mail.Authenticator;
import jakarta.mail.Message;
import jakarta.mail.PasswordAuthentication;
import jakarta.mail.Session;
import jakarta.mail.Transport;
import jakarta.mail.internet.InternetAddress;
import jakarta.mail.internet.MimeBodyPart;
import jakarta.mail.internet.MimeMessage;
import jakarta.mail.internet.MimeMultipart;
import java.util.Date;
import java.util.Properties;

/** Jakarta Mail composes and sends: HOST PORT none|starttls|implicit MECHANISM LOGIN PASSWORD FROM TO FILE */
public final class JakartaMail {
    private static Properties settings(String[] arguments) {
        Properties p = new Properties();
        p.setProperty("mail.smtp.host", arguments[0]);
        p.setProperty("mail.smtp.port", arguments[1]);
        p.setProperty("mail.smtp.localhost", "java");
        p.setProperty("mail.smtp.starttls.enable", String.valueOf(arguments[2].equals("starttls")));
        p.setProperty("mail.smtp.starttls.required", String.valueOf(arguments[2].equals("starttls")));
        p.setProperty("mail.smtp.ssl.enable", String.valueOf(arguments[2].equals("implicit")));
        p.setProperty("mail.smtp.ssl.checkserveridentity", "true");
        p.setProperty("mail.smtp.auth", "true");
        p.setProperty("mail.smtp.auth.mechanisms", arguments[3]);
        return p;
    }

    private static Message message(Session session, String from, String to, String file) throws Exception {
        MimeBodyPart text = new MimeBodyPart();
        text.setText("Please find the scan attached.\n.\n..\n", "utf-8");
        MimeBodyPart scan = new MimeBodyPart();
        scan.attachFile(file);
        scan.setFileName("scan.pdf");
        Message message = new MimeMessage(session);
        message.setFrom(new InternetAddress(from));
        message.setRecipient(Message.RecipientType.TO, new InternetAddress(to));
        message.setSubject("Scan from Java");
        message.setSentDate(new Date());
        message.setContent(new MimeMultipart(text, scan));
        return message;
    }

    public static void main(String[] arguments) throws Exception {
        Session session = Session.getInstance(settings(arguments), new Authenticator() {
            @Override
            protected PasswordAuthentication getPasswordAuthentication() {
                return new PasswordAuthentication(arguments[4], arguments[5]);
            }
        });
        Transport.send(message(session, arguments[6], arguments[7], arguments[8]));
    }
}
