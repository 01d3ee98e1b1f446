//go:build linux

// Command agent stands for an AI agent that does what it is told, also by
// those who should not tell it. It is the only program in the lab's images, so
// it is its own shell, client and server.
//
//	agent serve [-bind lan|loopback] [-port N] [-udp] [-picky]
//	agent do VERB [ARG]...
//	agent verbs
//	agent health
//	agent sleep SECONDS
//	agent split UID SECONDS
//	agent runtime RUNC [ARG]...
//
// "serve" answers GET /healthz, and /do?verb=VERB&arg=…&arg=… with what "agent
// do VERB ARG…" prints: a JSON object with "ok", "error" and "result". The exit
// status of "do" is 0 or 1 accordingly. See verbs for what there is to do.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"sort"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fatal(2, "usage: agent serve|do|verbs|health|sleep|runtime …")
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "serve":
		serve(args)
	case "do":
		if len(args) == 0 {
			fatal(2, "usage: agent do VERB [ARG]...")
		}
		a := do(args[0], args[1:])
		json.NewEncoder(os.Stdout).Encode(a)
		if !a.OK {
			os.Exit(1)
		}
	case "verbs":
		var names []string
		for name, v := range verbs {
			names = append(names, name+" "+v.usage)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Println(name)
		}
	case "health":
		health()
	case "runtime":
		if len(args) == 0 {
			fatal(2, "usage: agent runtime RUNC [ARG]...")
		}
		runtime(args)
	case "sleep":
		if len(args) != 1 {
			fatal(2, "usage: agent sleep SECONDS")
		}
		sleep(args[0])
	case "split":
		if len(args) != 2 {
			fatal(2, "usage: agent split UID SECONDS")
		}
		split(args[0], args[1])
	default:
		fatal(2, "agent: no such command: "+os.Args[1])
	}
}

func fatal(code int, message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(code)
}

func sleep(seconds string) {
	n, err := strconv.ParseFloat(seconds, 64)
	if err != nil {
		fatal(2, "agent: "+err.Error())
	}
	time.Sleep(time.Duration(n * float64(time.Second)))
}

// verb is something the agent can be told to do.
type verb struct {
	usage string
	args  int // fewest
	run   func(args []string) (any, error)
}

// verbs is filled by the files of this package, one for each subject.
var verbs = merge(fileVerbs, processVerbs, stubbornVerbs, networkVerbs, privilegeVerbs, toolVerbs, escapeVerbs)

func merge(sets ...map[string]verb) map[string]verb {
	all := map[string]verb{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// answer says what came of a verb.
type answer struct {
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
	Errno  string `json:"errno,omitempty"` // such as EROFS, if the kernel refused
	Result any    `json:"result,omitempty"`
}

func do(name string, args []string) answer {
	v, ok := verbs[name]
	if !ok {
		return answer{Error: "no such verb: " + name}
	}
	if len(args) < v.args {
		return answer{Error: "usage: " + name + " " + v.usage}
	}
	result, err := v.run(args)
	a := answer{OK: err == nil, Result: result}
	if err != nil {
		a.Error = err.Error()
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			a.Errno = errnoName(errno)
		}
	}
	return a
}

func errnoName(errno syscall.Errno) string {
	switch errno {
	case syscall.EPERM:
		return "EPERM"
	case syscall.EACCES:
		return "EACCES"
	case syscall.EROFS:
		return "EROFS"
	case syscall.ENOENT:
		return "ENOENT"
	case syscall.EAGAIN:
		return "EAGAIN"
	case syscall.ENOSPC:
		return "ENOSPC"
	case syscall.ECONNREFUSED:
		return "ECONNREFUSED"
	case syscall.ETIMEDOUT:
		return "ETIMEDOUT"
	case syscall.ENETUNREACH:
		return "ENETUNREACH"
	case syscall.EHOSTUNREACH:
		return "EHOSTUNREACH"
	}
	return strconv.Itoa(int(errno))
}
