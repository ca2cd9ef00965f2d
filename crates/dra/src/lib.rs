//! Inventory and declarations to Kubernetes objects: slices, classes, taint rules, the admission policy. Pure.
