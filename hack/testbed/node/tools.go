//go:build tools

// Package tools names the programs that hack/testbed/build makes from this module, so that
// `go mod tidy` keeps what they need in go.mod and go.sum. It is never compiled.
package tools

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
	_ "github.com/opencontainers/runc"
)
