// A worker with OpenTelemetry's own SDK: it takes jobs over HTTP and tells of them by logs, spans and metrics.
//
// usage: NODE_PATH=… node worker.js PORT OTLP_HTTP_ENDPOINT TOKEN PROJECT MARKER
//
// `POST /jobs {"customer", "card"}` is one job. `POST /stop` flushes and ends it; then it prints, as JSON, what it
// counted itself. Every line has a running number and the marker, a word that nobody has a reason to hide.
'use strict';

const http = require('node:http');
const { context, trace, SeverityNumber, SpanKind, SpanStatusCode } = require('@opentelemetry/api');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BatchLogRecordProcessor, LoggerProvider } = require('@opentelemetry/sdk-logs');
const { BatchSpanProcessor, TracerProvider } = require('@opentelemetry/sdk-trace');
const { MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');
const { OTLPLogExporter } = require('@opentelemetry/exporter-logs-otlp-proto');
const { OTLPTraceExporter } = require('@opentelemetry/exporter-trace-otlp-proto');
const { OTLPMetricExporter } = require('@opentelemetry/exporter-metrics-otlp-proto');

const [port, endpoint, token, project, marker] = process.argv.slice(2);
const target = (path) => ({ url: endpoint + path, headers: { authorization: `Bearer ${token}` }, compression: 'gzip' });
const resource = resourceFromAttributes({ 'service.name': 'mailer', 'service.instance.id': 'mailer-1', 'project.id': project });
const logs = new LoggerProvider({
  resource,
  processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(target('/v1/logs')), scheduledDelayMillis: 200 })],
});
const spans = new TracerProvider({
  resource,
  spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter(target('/v1/traces')), scheduledDelayMillis: 200 })],
});
const reader = new PeriodicExportingMetricReader({
  exporter: new OTLPMetricExporter(target('/v1/metrics')),
  exportIntervalMillis: 1000,
  exportTimeoutMillis: 1000,
});
const metrics = new MeterProvider({ resource, readers: [reader] });

const logger = logs.getLogger('jobs');
const tracer = spans.getTracer('mailer');
const done = metrics.getMeter('mailer').createCounter('jobs.done', { unit: '{job}' });
const size = metrics.getMeter('mailer').createHistogram('job.size', { unit: 'By' });

const told = { lines: 0, traces: [], counted: { text: 0, pdf: 0 }, recorded: [] };
let last;

// One line: its number stands in the body and among the attributes.
function say(severityNumber, severityText, body, attributes, within) {
  const number = told.lines++;
  const text = (words) => `line ${number} ${marker} ${words}`;
  logger.emit({
    severityNumber,
    severityText,
    body: typeof body === 'string' ? text(body) : { ...body, text: text('in parts') },
    attributes: { number, ...attributes },
    context: within,
  });
}

function job({ customer, card }) {
  const number = told.recorded.length;
  const kind = number % 4 === 0 ? 'pdf' : 'text';
  const links = last ? [{ context: last, attributes: { why: 'the job before' } }] : [];
  const root = tracer.startSpan('mail', { kind: SpanKind.CONSUMER, links, attributes: { 'to.address': customer, marker } });
  last = root.spanContext();
  told.traces.push(last.traceId);
  const within = trace.setSpan(context.active(), root);
  say(SeverityNumber.INFO, 'INFO', `mail ${number} to ${customer}`, { to: customer }, within);
  const render = tracer.startSpan('render', { kind: SpanKind.INTERNAL }, within);
  render.addEvent('printed', { pages: 2, of: `card ${card}` });
  render.end();
  const send = tracer.startSpan('send', { kind: SpanKind.CLIENT }, within);
  send.setStatus({ code: SpanStatusCode.ERROR, message: `bounced: ${customer}` });
  send.end();
  // A body of several parts, as structured logging makes them.
  say(SeverityNumber.INFO, 'INFO', { card, people: [{ address: customer }] }, { bill: { card } }, within);
  say(SeverityNumber.WARN, 'WARN', `bounced: <${customer}>, bill ${card}`, {}, within);
  root.end();
  const bytes = (number % 20) * 400;
  done.add(1, { kind });
  size.record(bytes, {});
  told.counted[kind] += 1;
  told.recorded.push(bytes);
}

async function stop() {
  await Promise.all([logs.forceFlush(), spans.forceFlush()]);
  // The shutdown of metrics collects and sends them a last time.
  await Promise.all([logs.shutdown(), spans.shutdown(), metrics.shutdown()]);
  console.log(JSON.stringify(told));
  process.exit(0);
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    if (request.url === '/jobs') {
      job(JSON.parse(Buffer.concat(chunks)));
      response.writeHead(201).end();
    } else if (request.url === '/stop') {
      response.writeHead(204, { connection: 'close' }).end(stop);
    } else {
      response.writeHead(404).end();
    }
  });
});
server.listen(Number(port), '127.0.0.1', () => console.log('ready'));
