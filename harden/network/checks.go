package network

import (
	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// What the checks must be allowed to do: to read the packet filter, and whose
// sockets there are.
const (
	needsRules   = host.AdminNetwork
	needsSockets = host.ReadProcesses
	needsUFW     = host.AdminNetwork | host.ReadFiles // UFW's rules are for root to read
)

// Checks returns the checks of points 6 to 9 that c describes. They look at the
// machine once.
func Checks(c Config) []harden.Check {
	src := NewSource(c)
	bind := func(info harden.Info, j judge) harden.Check { return harden.Each(info, src, j) }
	checks := []harden.Check{
		bind(harden.Info{
			ID: "network.localhost_binding", Point: harden.PointLocalhost, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Needs: needsRules | needsSockets,
			Title: "The gateway listens on loopback only",
			Doc:   "What listens beyond loopback is one mistake in a firewall away from everyone. Bind the gateway, and publish its port, on 127.0.0.1.",
			Refs:  []string{"CIS Docker 5.14"},
		}, c.judgeLocalhost),
		bind(harden.Info{
			ID: "network.loopback_leak", Point: harden.PointLocalhost, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Needs: needsRules | needsSockets,
			Title: "A port published on loopback stays there",
			Doc:   "Before Docker 28 a neighbour on the network reached it through a route (moby#45610). Drop what comes from outside for loopback and for the containers' addresses.",
		}, c.judgeLeak),
		bind(harden.Info{
			ID: "network.ufw_enabled", Point: harden.PointUFW, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: needsUFW,
			Title: "A firewall is enabled, and loaded",
			Doc:   "UFW, or firewalld or nftables in its place. Without one, whatever listens can be reached.",
		}, c.judgeUFWEnabled),
		bind(harden.Info{
			ID: "network.ufw_default_deny", Point: harden.PointUFW, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: needsUFW,
			Title: "UFW denies what no rule allows",
			Doc:   "A list of what is denied is never complete. Deny by default, and allow by name.",
		}, c.judgeUFWDefault),
		bind(harden.Info{
			ID: "network.ufw_kernel", Point: harden.PointUFW, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: needsUFW,
			Title: "The kernel drops new connections to ports that nobody allowed, over IPv4 and IPv6",
			Doc:   "UFW's status says \"active\" as long as one chain exists, also when no packet meets it. What counts is what becomes of a packet.",
		}, c.judgeUFWKernel),
		bind(harden.Info{
			ID: "network.ufw_rules", Point: harden.PointUFW, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: needsUFW,
			Title: "Every rule that lets something in names what",
			Doc:   "A rule that allows anything from anyone undoes the default. Name a port, a sender, or an interface that does not lead outside.",
		}, c.judgeUFWRules),
		bind(harden.Info{
			ID: "network.docker_user", Point: harden.PointDockerUser, Severity: harden.SeverityCritical, Requires: harden.LevelInspected,
			Needs: needsRules | needsSockets,
			Title: "No new connection from outside arrives at what the engine exposes",
			Doc:   "Docker's own rules come before UFW's. What closes its ports is what DOCKER-USER, or a chain before it, does with a packet from outside.",
			Refs:  []string{"CIS Docker 5.9"},
		}, c.judgePublished),
		bind(harden.Info{
			ID: "network.container_egress", Severity: harden.SeverityMedium, Requires: harden.LevelInspected, Needs: needsRules,
			Title: "Containers get answers to the connections that they begin",
			Doc:   "A rule that drops all that comes in from outside, instead of new connections, cuts the containers off.",
		}, c.judgeEgress),
		bind(harden.Info{
			ID: "network.tailscale_up", Point: harden.PointTailscale, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "The machine takes part in its tailnet",
			Doc:   "A tailnet is a way in that needs no open port. Its key must not be about to expire.",
		}, c.judgeTailnetUp),
		bind(harden.Info{
			ID: "network.tailscale_funnel", Point: harden.PointTailscale, Severity: harden.SeverityCritical, Requires: harden.LevelInspected,
			Title: "Nothing is open to the internet by Funnel",
			Doc:   "Funnel gives a service of the machine an address on the internet. Those that a program holds in the foreground do not show in tailscale's status.",
		}, c.judgeFunnel),
		bind(harden.Info{
			ID: "network.tailscale_operator", Point: harden.PointTailscale, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "The agent cannot reconfigure Tailscale",
			Doc:   "Whoever is the operator may turn on Funnel with one request. The agent must not be, and must not have the socket.",
		}, c.judgeOperator),
		bind(harden.Info{
			ID: "network.tailscale_prefs", Point: harden.PointTailscale, Severity: harden.SeverityMedium, Requires: harden.LevelInspected,
			Title: "Nobody configures the machine over the tailnet",
			Doc:   "Remote configuration and the web interface let others than root change what the tailnet reaches.",
		}, c.judgePrefs),
		bind(harden.Info{
			ID: "network.ssh_exposure", Point: harden.PointTailscale, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Needs: needsRules | needsSockets,
			Title: "SSH is reached over the tailnet only",
			Doc:   "What speaks SSH is found by what it says, not by its name or port: a service manager may hold its socket.",
		}, c.judgeSSH),
	}
	return c.Remedy.wrap(&c, src, checks)
}
