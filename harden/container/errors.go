package container

import "errors"

// ErrNoContainer reports a name that no container of the engine has.
var ErrNoContainer = errors.New("no such container")

// ErrEngine reports an engine that could not be asked: it does not run, does
// not answer, or answers nonsense. The cause is wrapped beside it.
var ErrEngine = errors.New("container engine not available")

// Why the kernel shows nothing of a container.
var (
	// ErrRemote: the engine runs on another machine.
	ErrRemote = errors.New("the engine is on another machine: run the audit there")
	// ErrNotRunning: it has no processes.
	ErrNotRunning = errors.New("the container is not running: start it to see what the kernel makes of it")
	// ErrVanished: it ended or was removed while it was examined.
	ErrVanished = errors.New("the container went away while it was examined: run the audit again")
	// ErrOtherProcess: the process that the engine names is not one of the
	// container's here, as when the engine is in a virtual machine.
	ErrOtherProcess = errors.New("the engine's process ids are not those of this machine: run the audit where the engine runs")
)
