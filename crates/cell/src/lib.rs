//! The service: API, reconciler, publishers.
