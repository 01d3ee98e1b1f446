// Package remote fires a kill switch from elsewhere: by a command that an
// operator has signed, or from a page on a phone. It can renew a lease
// ([Config.Lease]). It cannot reset: what was stopped stays down until somebody
// goes to the machine.
//
// [New] makes the [Handler], [NewServer] serves it, a [Client] signs, sends and
// verifies; [Command] has the format.
//
// # What is safe
//
// A kill that is refused may cost everything, one too many an agent's time. So
// whatever happens to the server, a command that an operator signed and that is
// fresh fires:
//
//   - No limit on strangers refuses it. Limits decide which refusals are
//     explained and recorded, and which slow sender is cut off.
//   - It is fresh by the clock, within [Config.Skew], or by a challenge of the
//     server's, whatever the clocks say. A Client that is told that its command
//     is stale signs a challenge.
//   - The memory of used commands is written while the kill is under way. If it
//     is full, it forgets the oldest; if it is damaged or cannot be written, a
//     command can be used twice while it is fresh, and the server says so.
//   - A server without its key fires, and its answers cannot be verified; the
//     trail is not waited for; a client that goes away ends nothing.
//
// To renew a lease is the other way round: it takes a challenge, so that no
// clock and no memory on disk is believed, and whatever is in doubt is refused.
//
// # The page
//
// The page asks for a secret, a [Link], by its address or in a field, and
// fires after a second tap. It is the same without a script, of which it has
// none. There is no cookie, and nothing that a browser or a proxy adds is
// believed: in particular not the headers with which tailscaled names a user,
// because whatever runs on this machine, an agent in the host's network
// included, can connect to loopback and send the same. Let the tailnet decide who
// reaches the page, and the link who may use it. An address is kept by browsers
// and proxies; type the link, or let the phone fill it in, where that matters.
// A link that became known stops an agent, and does nothing else.
package remote
