// Node's nodemailer composes and sends: HOST PORT none|starttls|implicit MECHANISM LOGIN PASSWORD CA FROM TO FILE
'use strict';
const fs = require('fs');
const nodemailer = require('nodemailer');

const [host, port, tls, mechanism, login, password, ca, from, to, file] = process.argv.slice(2);
const transport = nodemailer.createTransport({
    host, port: Number(port), name: 'node', authMethod: mechanism, auth: {user: login, pass: password},
    secure: tls === 'implicit', ignoreTLS: tls === 'none', requireTLS: tls === 'starttls',
    tls: {ca: fs.readFileSync(ca)},
});
transport.sendMail({
    from, to, subject: 'Scan from Node: ½ €', text: 'Please find the scan attached.\n.\n..\n',
    attachments: [{filename: 'Grüße.pdf', path: file}],
}).then(() => process.exit(0), (error) => {
    console.error(error);
    process.exit(1);
});
