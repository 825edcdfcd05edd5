// A page's worth of OpenFeature: the web SDK with the OFREP provider, as an
// application has them. It prints what happens, a JSON object a line, and takes
// commands on its input:
//
//   context JSON   another evaluation context
//   end            close everything and exit
//
// Usage: node client.mjs BASE-URL sse|polling CONTEXT
import readline from 'node:readline';
import { EventSource } from 'eventsource';
import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';

// Browsers have it; the provider looks for it there.
globalThis.EventSource = EventSource;

const [base, changeDetection, context] = process.argv.slice(2);
const print = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');

// Every request is shown, so that tests see tags and 304, but no more of a
// stream's address than its path.
const fetchImplementation = async (request, init) => {
  const response = await fetch(request, init);
  print('fetch', {
    status: response.status,
    query: new URL(request.url).search,
    ifNoneMatch: request.headers.get('if-none-match') ?? '',
    etag: response.headers.get('etag') ?? '',
  });
  return response;
};

const provider = new OFREPWebProvider({
  baseUrl: base,
  fetchImplementation,
  changeDetection,
  cacheMode: 'disabled', // there is no localStorage here
  pollInterval: changeDetection === 'polling' ? 100 : 0,
});
const client = OpenFeature.getClient();

const show = (event, more) => {
  const express = client.getBooleanDetails('express-checkout', false);
  print(event, {
    ...more,
    values: {
      express: express.value,
      flow: client.getStringValue('checkout-flow', 'none'),
      shipping: client.getNumberValue('free-shipping-from-cents', -1),
      codeDefault: client.getStringValue('team/code-default', 'the code'),
      disabled: client.getBooleanValue('team/disabled', true),
      object: client.getObjectValue('team/layout', {}),
    },
    express: { reason: express.reason, variant: express.variant, metadata: express.flagMetadata },
    missing: client.getBooleanDetails('no-such-flag', true),
    mismatch: client.getStringDetails('express-checkout', 'text').errorCode,
  });
};

client.addHandler(ProviderEvents.ConfigurationChanged, (d) => show('changed', { flags: d.flagsChanged }));
client.addHandler(ProviderEvents.Stale, () => print('stale'));
client.addHandler(ProviderEvents.Error, (d) => print('error', { message: d.message }));

await OpenFeature.setContext(JSON.parse(context));
try {
  await OpenFeature.setProviderAndWait(provider);
  show('ready');
} catch (err) {
  print('failed', { message: String(err) });
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  if (line.startsWith('context ')) {
    await OpenFeature.setContext(JSON.parse(line.slice('context '.length)));
    show('context');
  } else if (line === 'end') {
    break;
  }
}
await OpenFeature.close();
process.exit(0);
