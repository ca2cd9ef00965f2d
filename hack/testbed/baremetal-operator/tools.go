//go:build tools

// Package tools names the program that hack/testbed/build makes from this module, so that
// `go mod tidy` keeps what it needs in go.mod and go.sum. It is never compiled.
package tools

import _ "github.com/metal3-io/baremetal-operator"
