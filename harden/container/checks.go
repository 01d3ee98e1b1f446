package container

import "github.com/managemyclaw/hardshell/harden"

// Checks returns the checks of containers: points 1 to 5, the container's part
// of point 6, and limits. They judge the containers of src by p.
func Checks(src *harden.Source[Container], p Profile) []harden.Check {
	bind := func(info harden.Info, j judge) harden.Check { return harden.Each(info, src, j) }
	return []harden.Check{
		bind(harden.Info{
			ID: "container.non_root", Point: harden.PointNonRoot, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "No process of the container has a root id",
			Doc:   "Root in a container is root on the machine the moment anything else gives way. Run as a user of its own, with a group of its own.",
			Refs:  []string{"CIS Docker 4.1", "CIS Docker 5.24"},
		}, judgeIDs),
		bind(harden.Info{
			ID: "container.read_only_root", Point: harden.PointReadOnlyFS, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "The root file system is mounted read-only",
			Doc:   "An agent that can write its own program can be made to keep what an attacker puts there. Run with a read-only root.",
			Refs:  []string{"CIS Docker 5.13"},
		}, judgeRoot),
		bind(harden.Info{
			ID: "container.tmpfs", Point: harden.PointReadOnlyFS, Severity: harden.SeverityMedium, Requires: harden.LevelInspected,
			Title: "Temporary file systems are bounded, nosuid, nodev and noexec",
			Doc:   "A tmpfs without a size may take half of the machine's memory. Mount with size=…,noexec,nosuid,nodev.",
		}, judgeTmpfs(p)),
		bind(harden.Info{
			ID: "container.writable_paths", Point: harden.PointReadOnlyFS, Severity: harden.SeverityMedium, Requires: harden.LevelInspected,
			Title: "Only declared paths are writable",
			Doc:   "What can be written can be made to persist. Declare the state that the agent keeps, and mount everything else read-only.",
		}, judgeWritable(p)),
		bind(harden.Info{
			ID: "container.host_paths", Point: harden.PointReadOnlyFS, Severity: harden.SeverityCritical, Requires: harden.LevelInspected,
			Title: "No sensitive directory of the host is mounted",
			Doc:   "The host's configuration, credentials, kernel interfaces and engine state are the host. Mount only the agent's own directories.",
			Refs:  []string{"CIS Docker 5.6"},
		}, judgeHostPaths),
		bind(harden.Info{
			ID: "container.masked_paths", Point: harden.PointReadOnlyFS, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "Kernel interfaces are masked or read-only",
			Doc:   "Without the engine's masks, /proc and /sys give away the kernel's memory and settings. Remove systempaths=unconfined.",
		}, judgeMasks),
		bind(harden.Info{
			ID: "container.mount_propagation", Point: harden.PointReadOnlyFS, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "No mount propagates to the host",
			Doc:   "What is mounted below a shared mount appears on the host. Use private propagation.",
			Refs:  []string{"CIS Docker 5.20"},
		}, judgePropagation),
		bind(harden.Info{
			ID: "container.capabilities", Point: harden.PointCapDropAll, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "No capability is left in any set",
			Doc:   "Capabilities are root in pieces; one left in the bounding set can be had again. Drop ALL and add none.",
			Refs:  []string{"CIS Docker 5.4"},
		}, judgeCapabilities),
		bind(harden.Info{
			ID: "container.privileged", Point: harden.PointCapDropAll, Severity: harden.SeverityCritical, Requires: harden.LevelInspected,
			Title: "The container is not privileged",
			Doc:   "A privileged container has the machine's devices and every capability, whatever else was dropped.",
			Refs:  []string{"CIS Docker 5.5"},
		}, judgePrivileged),
		bind(harden.Info{
			ID: "container.devices", Point: harden.PointCapDropAll, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "No device of the host is exposed",
			Doc:   "A disk, memory or kernel log device is a way round everything else. Pass no devices.",
			Refs:  []string{"CIS Docker 5.18"},
		}, judgeDevices),
		bind(harden.Info{
			ID: "container.seccomp", Point: harden.PointCapDropAll, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "System calls are filtered, by a profile that denies the dangerous ones",
			Doc:   "The engine's default profile denies the calls that most escapes need. Do not disable it; a profile of your own must deny them too.",
			Refs:  []string{"CIS Docker 5.22"},
		}, judgeSeccomp),
		bind(harden.Info{
			ID: "container.lsm", Point: harden.PointCapDropAll, Severity: harden.SeverityMedium, Requires: harden.LevelInspected,
			Title: "A security module confines every process",
			Doc:   "Where the machine has AppArmor or SELinux, the container must not be exempt from it.",
			Refs:  []string{"CIS Docker 5.2", "CIS Docker 5.3"},
		}, judgeLSM),
		bind(harden.Info{
			ID: "container.namespaces", Point: harden.PointCapDropAll, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "Process, IPC, host name and user namespaces are the container's own",
			Doc:   "A namespace shared with the host shows and reaches the host's processes. Use private ones.",
			Refs:  []string{"CIS Docker 5.16", "CIS Docker 5.17", "CIS Docker 5.21", "CIS Docker 5.31"},
		}, judgeNamespaces),
		bind(harden.Info{
			ID: "container.engine_socket", Point: harden.PointNoSocketMount, Severity: harden.SeverityCritical, Requires: harden.LevelInspected,
			Title: "No socket of an engine, or of anyone else on the host, is reachable",
			Doc:   "Who reaches the engine's socket is root on the machine; read-only mounts do not help. Mount no socket, and no directory that holds one.",
			Refs:  []string{"CIS Docker 5.32"},
		}, judgeSockets(p)),
		bind(harden.Info{
			ID: "container.engine_tcp", Point: harden.PointNoSocketMount, Severity: harden.SeverityCritical, Requires: harden.LevelInspected,
			Title: "No engine listens where the container can connect",
			Doc:   "An engine on TCP port 2375 or 2376 can be reached over the bridge's own address. Let it listen on its unix socket alone.",
		}, judgeEngineTCP),
		bind(harden.Info{
			ID: "container.no_new_privileges", Point: harden.PointNoNewPrivileges, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "No process can gain privileges by running a program",
			Doc:   "Without it a setuid program in the image undoes the rest. Run with the security option no-new-privileges.",
			Refs:  []string{"CIS Docker 5.26"},
		}, judgeNoNewPrivileges),
		bind(harden.Info{
			ID: "container.published_ports", Point: harden.PointLocalhost, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "Ports are published on loopback only",
			Doc:   "A published port bypasses UFW. Publish on 127.0.0.1, and reach it through the tailnet or a tunnel.",
			Refs:  []string{"CIS Docker 5.14"},
		}, judgePorts(p)),
		bind(harden.Info{
			ID: "container.host_network", Point: harden.PointLocalhost, Severity: harden.SeverityHigh, Requires: harden.LevelInspected,
			Title: "The network namespace is the container's own",
			Doc:   "On the host's network the agent reaches every service on the machine's loopback, and its own ports are the machine's.",
			Refs:  []string{"CIS Docker 5.10"},
		}, judgeHostNetwork),
		bind(harden.Info{
			ID: "container.loopback_leak", Point: harden.PointLocalhost, Severity: harden.SeverityMedium, Requires: harden.LevelDeclared,
			Title: "A port published on loopback stays there",
			Doc:   "Before Docker 28 a neighbour on the network could reach it through a route (moby#45610). Update the engine, or drop packets to 127.0.0.0/8 from outside.",
		}, judgeLoopbackLeak),
		bind(harden.Info{
			ID: "container.memory_limit", Severity: harden.SeverityMedium, Requires: harden.LevelInspected,
			Title: "Memory is limited",
			Doc:   "Without a limit one agent can starve the machine, and with it what watches the agent.",
			Refs:  []string{"CIS Docker 5.11"},
		}, judgeMemory),
		bind(harden.Info{
			ID: "container.pids_limit", Severity: harden.SeverityMedium, Requires: harden.LevelInspected,
			Title: "The number of processes is limited",
			Doc:   "Without a limit a fork bomb takes the machine down.",
			Refs:  []string{"CIS Docker 5.29"},
		}, judgePids),
		bind(harden.Info{
			ID: "container.cgroup_namespace", Severity: harden.SeverityLow, Requires: harden.LevelInspected,
			Title: "The cgroup namespace is the container's own",
			Doc:   "In the host's cgroup namespace a container sees how the machine is divided. Run with --cgroupns=private.",
			Refs:  []string{"CIS Docker 5.25"},
		}, judgeCgroupNamespace),
	}
}
