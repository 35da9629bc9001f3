// A real, certified OpenID Provider for tests, told by one JSON argument what it is like.
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const told = JSON.parse(process.argv[2]);
const people = told.people;

// A key of each run: "rotate" on standard input makes the next one, and the former is published no more.
function key(number) {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: `key-${number}`, use: 'sig', alg: 'RS256' };
}

function provider(number) {
  return new Provider(told.issuer, {
    clients: told.clients,
    claims: {
      openid: ['sub'],
      email: ['email', 'email_verified'],
      profile: ['name', 'given_name', 'family_name', 'preferred_username', 'picture'],
      groups: ['groups'],
    },
    scopes: ['openid', 'email', 'profile', 'groups'],
    pkce: { required: () => true },
    conformIdTokenClaims: told.conform ?? true,
    features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    cookies: { keys: ['a key of the tests, for its own cookies'] },
    jwks: { keys: [key(number)] },
    findAccount: (context, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, ...(people[id] ?? { preferred_username: id }) }),
    }),
  });
}

let number = 1;
let handler = provider(number).callback();
const { createServer } = await import('node:http');
const server = createServer((request, response) => handler(request, response));
process.stdin.on('data', () => {
  handler = provider(++number).callback();
  console.log(`key-${number}`);
});
process.stdin.on('end', () => process.exit(0));
server.listen(told.port, '127.0.0.1', () => console.log('ready'));
