// Package compose checks what a Docker compose file declares about the
// containers of an agent, and hardens the file.
//
// [Load] reads a project with the semantics of "docker compose config":
// interpolation, .env files, overrides, extends, include, merge keys and both
// syntaxes of everything. [Checks] judges its services on points 1 to 6, and
// [Harden] rewrites a file so that they pass: it splices the few lines that
// need to change and leaves every other byte, comments and anchors included,
// as it was. [Remediate] binds the two together for a harden.Fixer.
//
// A file is a declaration. What passes here passes at harden.LevelDeclared,
// which is not enough for a point of a machine: the container that runs may
// have been made from something else. Judge that too.
//
// Compose files and env files hold secrets. No error, fact, finding, note or
// plan of this package shows the value of an environment variable.
package compose
