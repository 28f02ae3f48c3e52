//! What each sink is charged for, and what the disk holds, at the moment of the scrape.

use super::SinkId;
use super::keep::Journal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

impl Collector for Journal {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "What a sink still has to take, in bytes of the journal";
        let name = "deliver_waiting_bytes";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let sinks = self.sinks.load();
        let there = sinks.known.iter().enumerate().filter(|(_, sink)| sink.terms.is_some());
        for (number, sink) in there {
            let bytes = i64::try_from(self.charged_bytes(SinkId(number as u16))).unwrap_or(i64::MAX);
            metric.encode_family(&[("sink", sink.name.as_str())])?.encode_gauge(&bytes)?;
        }
        if self.is_durable() {
            let help = "The room that the journal's files take, in bytes";
            let mut metric = encoder.encode_descriptor("commit_disk_bytes", help, None, MetricType::Gauge)?;
            metric.encode_gauge(&i64::try_from(self.state().disk_bytes).unwrap_or(i64::MAX))?;
            let help = "Whether requests are refused since the journal's disk is full";
            let mut metric = encoder.encode_descriptor("commit_disk_full", help, None, MetricType::Gauge)?;
            metric.encode_gauge(&i64::from(self.is_full()))?;
            let help = "Whether requests are refused since an essential sink is too far behind";
            let mut metric = encoder.encode_descriptor("commit_held", help, None, MetricType::Gauge)?;
            metric.encode_gauge(&i64::from(self.is_held(&self.state())))?;
        }
        Ok(())
    }
}
