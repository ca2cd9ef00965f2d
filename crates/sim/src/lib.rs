//! A simulated site: BMCs over HTTPS from recorded trees or models, with faults by rule.
