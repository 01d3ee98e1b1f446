package container

// Listed is a container in an engine's list of all of them: what tells whose
// it is. The rest is in [Settings].
type Listed struct {
	ID    string // in full
	Name  string // without a leading slash
	Image string // as it was asked for
	State string // as in [Settings.State]

	// Project and Service are those of Docker Compose; empty for containers
	// that it did not make.
	Project, Service string
}
