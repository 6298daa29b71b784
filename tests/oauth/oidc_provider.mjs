// The npm package oidc-provider over HTTPS, with the applications that tests/e2e/test_oauth_servers.py signs in.
//
//   node oidc_provider.mjs DIRECTORY    DIRECTORY: server.pem, server.key, one.crt; node_modules is found beside it
//
// Prints its URL. Whoever comes with a browser is logged in and has consented.
import { createPublicKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const directory = process.argv[2];
const require = createRequire(pathToFileURL(join(directory, 'x.js')));
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href);
const read = (name) => readFileSync(join(directory, name));
const jwk = createPublicKey(new X509Certificate(read('one.crt')).publicKey.export({ type: 'spki', format: 'pem' }))
  .export({ format: 'jwk' });

const app = (id, more) => ({
  client_id: id, grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope: 'SMTP.Send', ...more,
});
const byKey = (id, alg) => app(id, {
  token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: alg,
  jwks: { keys: [{ ...jwk, kid: id, use: 'sig' }] },
});

const server = createServer({ key: read('server.key'), cert: read('server.pem') });
server.listen(0, '127.0.0.1', () => {
  const url = `https://127.0.0.1:${server.address().port}`;
  const provider = new Provider(url, {
    clients: [
      app('secret-app', { client_secret: 'a secret: +&=%/~', token_endpoint_auth_method: 'client_secret_post' }),
      byKey('ps256-app', 'PS256'),
      byKey('rs256-app', 'RS256'),
      {
        client_id: 'person-app', application_type: 'native', token_endpoint_auth_method: 'none',
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
        redirect_uris: ['http://127.0.0.1/back'], response_types: ['code'],
      },
    ],
    clientAuthMethods: ['client_secret_post', 'private_key_jwt', 'none'],
    scopes: ['openid', 'offline_access', 'SMTP.Send'],
    features: { clientCredentials: { enabled: true }, deviceFlow: { enabled: true }, devInteractions: { enabled: false } },
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    pkce: { required: () => true },
    cookies: { keys: ['practice'] },
    findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  });
  server.on('request', async (request, response) => {
    if (!request.url.startsWith('/interaction/')) {
      provider.callback()(request, response);
      return;
    }
    const { params } = await provider.interactionDetails(request, response);
    const grant = new provider.Grant({ accountId: 'scanner', clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    await provider.interactionFinished(request, response, {
      login: { accountId: 'scanner' }, consent: { grantId: await grant.save() },
    });
  });
  console.log(url);
});
