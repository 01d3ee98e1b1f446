//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// capabilities by number, as in linux/capability.h.
var capabilities = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID
	SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW
	IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
	SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD
	LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
	WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// runtime is an OCI runtime: the one that args begin with, except that
// containers are not given capabilities that this machine cannot give. Older
// runcs fail to start such containers, newer ones do the same as this.
func runtime(args []string) {
	bounding, err := boundingSet()
	if err != nil {
		fatal(1, err.Error())
	}
	for i, arg := range args[:len(args)-1] {
		file := ""
		switch arg {
		case "--bundle", "-b":
			file = filepath.Join(args[i+1], "config.json")
		case "--process", "-p":
			file = args[i+1]
		default:
			continue
		}
		if err := limitFile(file, bounding); err != nil {
			fatal(1, err.Error())
		}
	}
	fatal(1, fmt.Sprintf("%s: %v", args[0], syscall.Exec(args[0], args, os.Environ())))
}

func boundingSet() (uint64, error) {
	s, err := status("/proc/self/status")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(s["CapBnd"], 16, 64)
}

// limitFile rewrites a container's configuration, or that of a process to
// start in one.
func limitFile(file string, bounding uint64) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	limited, err := limit(data, bounding)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if limited == nil {
		return nil
	}
	return os.WriteFile(file, limited, 0o600)
}

// limit returns nil if there is nothing to take away.
func limit(data []byte, bounding uint64) ([]byte, error) {
	// Numbers as they are: some do not fit a float64.
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var config map[string]any
	if err := decoder.Decode(&config); err != nil {
		return nil, err
	}
	process := config
	if p, ok := config["process"].(map[string]any); ok {
		process = p
	}
	sets, _ := process["capabilities"].(map[string]any)
	changed := false
	for kind, set := range sets {
		list, _ := set.([]any)
		kept := slices.DeleteFunc(slices.Clone(list), func(c any) bool {
			name, _ := c.(string)
			bit := slices.Index(capabilities, strings.TrimPrefix(name, "CAP_"))
			return bit >= 0 && bounding&(1<<bit) == 0
		})
		if len(kept) != len(list) {
			sets[kind], changed = kept, true
		}
	}
	if !changed {
		return nil, nil
	}
	return json.Marshal(config)
}
