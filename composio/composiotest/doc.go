// Package composiotest is a Composio in memory for tests: a server with the
// semantics of API v3.1, the awkward ones included, whose true state can be
// looked at.
//
// [New] makes a project; fill it with the Add methods. It is an
// [net/http.Handler]. [Server.ClientConfig] configures a client that reaches it
// without a network, so that it works under package testing/synctest;
// [Server.Start] makes it listen on loopback for programs in other languages.
//
// What it does as the real one does:
//
//   - parameters that it does not know are ignored, so that a filter that is
//     misspelt lists the whole project;
//   - accounts that are shared are listed only if account_type asks for them;
//   - pages are counted from the beginning, cursors are the number of a page,
//     and a limit above the server's can give one page with a total that says
//     that there are more ([Config.LyingPages]);
//   - only an account that is ACTIVE can be revoked (409 otherwise), one whose
//     auth config was removed is not found, and a deletion revokes in a job of
//     which nothing can be asked;
//   - an answer 429 has no "error" in its body;
//   - an allowlist that is set to nothing allows everything.
//
// [Config.Fault] injects failures: answers that fail, are late, break off or
// are lost after the request was carried out. [Server.Violations] lists the
// requests that the description of the API does not cover.
package composiotest
