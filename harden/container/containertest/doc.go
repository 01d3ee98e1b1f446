// Package containertest helps to test what judges and recreates containers,
// without an engine.
//
// [Engine] is an engine in memory, whose containers change as they should, and
// [Facts] shows what a kernel would show of one. An [Interceptor] in front of
// any engine, also a real one, lets calls fail. [TestControl] tests whether an
// engine behaves as [container.Control] says; Engine and package docker both
// pass it.
package containertest
