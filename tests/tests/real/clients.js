// Sends a known set of logs, spans and metrics with OpenTelemetry's Node SDK.
// usage: NODE_PATH=… node clients.js grpc|json|proto ENDPOINT TOKEN PROJECT
'use strict';

const { BatchLogRecordProcessor, LoggerProvider } = require('@opentelemetry/sdk-logs');
const { BatchSpanProcessor, TracerProvider } = require('@opentelemetry/sdk-trace');
const { MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { context, trace, SeverityNumber } = require('@opentelemetry/api');

const [protocol, endpoint, token, project] = process.argv.slice(2);
const flavour = { grpc: 'grpc', json: 'http', proto: 'proto' }[protocol];
const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${flavour}`);
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${flavour}`);
const { OTLPMetricExporter } = require(`@opentelemetry/exporter-metrics-otlp-${flavour}`);

function target(path) {
  if (protocol !== 'grpc') {
    return { url: endpoint + path, headers: { authorization: `Bearer ${token}` }, compression: 'gzip' };
  }
  const { credentials, Metadata } = require('@grpc/grpc-js');
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return { url: endpoint, metadata, credentials: credentials.createInsecure() };
}

async function main() {
  const resource = resourceFromAttributes({ 'service.name': 'node-client', 'project.id': project, team: 'green' });
  const logs = new LoggerProvider({ resource, processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(target('/v1/logs')) })] });
  const spans = new TracerProvider({ resource, spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter(target('/v1/traces')) })] });
  const reader = new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter(target('/v1/metrics')), exportIntervalMillis: 60000 });
  const metrics = new MeterProvider({ resource, readers: [reader] });

  const span = spans.getTracer('clients').startSpan('place order', { attributes: { 'order.number': 7, customer: 'ada@example.com' } });
  span.addEvent('paid', { amount: 12.5 });
  const within = trace.setSpan(context.active(), span);
  const logger = logs.getLogger('orders');
  for (let number = 0; number < 20; number++) {
    logger.emit({
      severityNumber: SeverityNumber.WARN,
      severityText: 'WARN',
      body: `line ${number} of ada@example.com`,
      attributes: { number, ratio: number / 4, even: number % 2 === 0 },
      context: within,
    });
  }
  logger.emit({ severityNumber: SeverityNumber.ERROR, body: { text: 'naïve ünïcode ✓', parts: ['a', 'b'] }, context: within });
  span.end();
  metrics.getMeter('clients').createCounter('orders.accepted', { unit: '{order}' }).add(5, { route: '/orders' });
  metrics.getMeter('clients').createHistogram('order.duration', { unit: 's' }).record(0.25, { route: '/orders' });

  // The shutdown of metrics collects and sends them, once.
  await Promise.all([logs.forceFlush(), spans.forceFlush()]);
  await Promise.all([logs.shutdown(), spans.shutdown(), metrics.shutdown()]);
  const { traceId, spanId } = span.spanContext();
  console.log(traceId, spanId);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
