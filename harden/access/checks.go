package access

import (
	"slices"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// Checks returns the checks of points 10 to 14 that c describes. They look at
// each container, at Composio, at the gateway, at each trail and at each kill
// switch once.
func Checks(c Config) []harden.Check {
	agents, vault, policy, offer, guard := NewSource(c), NewVaultSource(c), NewPolicySource(c), NewOfferSource(c), NewGuardSource(c)
	const look = host.ReadProcesses | host.ReadFiles
	checks := []harden.Check{
		harden.Each(harden.Info{
			ID: "access.agent_credentials", Point: harden.PointComposioOAuth, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: look,
			Title: "The agent holds no credential",
			Doc: "What an agent can read it can be talked into giving away. Environment, arguments and files of its container are searched, databases and deleted files that are held open too. " +
				"Encrypted and compressed files and the memory of processes are not seen.",
		}, agents, judgeCredentials),
		harden.Each(harden.Info{
			ID: "access.openclaw_config", Point: harden.PointComposioOAuth, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: look,
			Title: "OpenClaw's configuration has no credential of Composio's, and none in clear",
			Doc:   "Composio's plugin and an MCP server of the configuration are two ways to give the agent a key; a variable or a reference gives it away as well as the text itself.",
		}, agents, judgeSettings),
		harden.Each(harden.Info{
			ID: "access.gateway_only", Point: harden.PointComposioOAuth, Severity: harden.SeverityHigh, Requires: harden.LevelProbed, Needs: look | host.AdminSystem,
			Title: "The gateway is the agent's only way to Composio",
			Doc:   "A policy binds nobody who can go round it. Connections to Composio are tried from the agent's own network; this machine must reach what the agent must not, or else nothing is proven.",
		}, agents, judgeGatewayOnly),
		harden.Each(harden.Info{
			ID: "access.masked_secrets", Point: harden.PointVault, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "Composio shows no credential in clear",
			Doc:   "Whoever has a project's key can turn masking off for all accounts. What the API shows of each account, shared ones too, is looked at once and not kept.",
		}, vault, judgeMasked),
		harden.Each(harden.Info{
			ID: "access.mcp_key", Point: harden.PointVault, Severity: harden.SeverityHigh, Requires: harden.LevelDeclared,
			Title: "MCP servers at Composio ask for a key",
			Doc:   "Without require_mcp_api_key the URL of a server is all that it takes to use its accounts.",
		}, vault, judgeMCPKey),
		harden.Each(harden.Info{
			ID: "access.tokens_at_rest", Point: harden.PointVault, Severity: harden.SeverityHigh, Requires: harden.LevelInspected, Needs: look,
			Title: "No token rests in clear in OpenClaw's databases",
			Doc:   "OpenClaw stores the OAuth tokens of MCP servers and models as plain JSON in SQLite. The bytes of the files are searched, rows that were deleted too.",
		}, agents, judgeStores),
		harden.Each(harden.Info{
			ID: "access.key_files", Point: harden.PointVault, Severity: harden.SeverityCritical, Requires: harden.LevelInspected, Needs: look,
			Title: "The files that hold keys are out of the agent's reach",
			Doc:   "The gateway's key is worth all accounts. Its file must belong to one user, in directories that nobody else can change, and be in no mount of the agent's.",
		}, guard, judgeGuard),
		harden.Each(harden.Info{
			ID: "access.tool_policy", Point: harden.PointToolAllowlists, Severity: harden.SeverityHigh, Requires: harden.LevelDeclared,
			Title: "The policy names every tool, and says which of them write",
			Doc:   "What a policy does not name is denied. A tool that does worse than the policy says is granted by mistake.",
		}, policy, judgePolicy),
		harden.Each(harden.Info{
			ID: "access.tools_offered", Point: harden.PointToolAllowlists, Severity: harden.SeverityHigh, Requires: harden.LevelProbed,
			Title: "The gateway offers exactly the policy's tools, and refuses others",
			Doc:   "It is asked as the agent would ask, over REST and over MCP, and for what it must refuse. What is tried does no harm where it is let through.",
		}, offer, judgeOffer),
		harden.Each(harden.Info{
			ID: "access.composio_allowlists", Point: harden.PointToolAllowlists, Severity: harden.SeverityMedium, Requires: harden.LevelInspected,
			Title: "Composio itself allows no tool but the policy's",
			Doc:   "To Composio an empty list means all tools. Its own lists hold where the gateway is gone round.",
		}, vault, judgeAllowlists),
	}
	return slices.Concat(c.Remedy.wrap(&c, checks), trailChecks(c), switchChecks(c))
}
