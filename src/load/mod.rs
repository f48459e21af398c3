//! The load generator: workload, pacer, checker, report.
mod calls;
mod encode;
mod framing;
mod lane;
mod message;
mod scheme;
mod stream;
mod timeline;
mod track;
