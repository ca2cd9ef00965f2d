// Cluster API as its makers release it: only files of it are read, nothing is built.
module bailiwick.dev/hack/testbed/cluster-api-crds

go 1.26.0

require sigs.k8s.io/cluster-api v1.14.2
