// Package hardshell is the map of the module; it has no code.
package hardshell
