//! What is published, against a real API server and scheduler (Kubernetes 1.36.3). A missing one fails these tests.

mod accepted;
mod cluster;
mod guarded;
mod scheduled;
