// Package killswitch stops an agent, makes sure that it has stopped, and keeps
// it down until somebody with a second secret releases it.
package killswitch
