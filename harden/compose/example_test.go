package compose_test

import (
	"context"
	"fmt"
	"testing/fstest"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/compose"
	"github.com/managemyclaw/hardshell/harden/host"
)

const agent = `services:
  gateway:
    image: ghcr.io/openclaw/openclaw:latest # pinned in .env
    command: [node, openclaw.mjs, gateway, --bind, lan]
    ports:
      - "18789:18789"
    volumes:
      - ./state:/home/node/.openclaw
      - /var/run/docker.sock:/var/run/docker.sock
`

func Example() {
	files := fstest.MapFS{"opt/agent/compose.yaml": {Data: []byte(agent)}}
	src := compose.Source(compose.Options{Files: []string{"/opt/agent/compose.yaml"}})
	for _, c := range compose.Checks(src) {
		r := harden.Evaluate(context.Background(), &host.View{FS: files}, c, 0)
		fmt.Println(r.Status, r.Info.ID)
		for _, f := range r.Findings {
			fmt.Println("    ", f.Message)
		}
	}
	// Output:
	// unknown compose.non_root
	// fail compose.read_only
	//      the root file system is writable
	// fail compose.mounts
	//      bind /var/run/docker.sock on /var/run/docker.sock opens /var/run/docker.sock, a part of the system
	// fail compose.capabilities
	//      cap_drop does not have ALL
	// pass compose.isolation
	// fail compose.engine_socket
	//      bind /var/run/docker.sock on /var/run/docker.sock opens /var/run/docker.sock, a socket of a container engine
	// fail compose.no_new_privileges
	//      no-new-privileges is not set
	// fail compose.ports
	//      port :18789:18789/tcp is published on every address
	// fail compose.limits
	//      there is no limit for memory
	//      there is no limit for processes
}

func ExampleHarden() {
	res, err := compose.Harden(context.Background(), []byte(agent), compose.Hardening{Needs: compose.OpenClawNeeds()})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(string(res.Doc))
	fmt.Println(len(res.Manual), "things left to do")
	// Output:
	// services:
	//   gateway:
	//     image: ghcr.io/openclaw/openclaw:latest # pinned in .env
	//     command: [node, openclaw.mjs, gateway, --bind, lan]
	//     ports:
	//       - "127.0.0.1:18789:18789"
	//     volumes:
	//       - ./state:/home/node/.openclaw
	//     user: "1000:1000"
	//     cap_drop:
	//       - ALL
	//     security_opt:
	//       - no-new-privileges:true
	//     read_only: true
	//     mem_limit: 2g
	//     pids_limit: 512
	//     tmpfs:
	//       - "/tmp:size=64m,noexec,nosuid,nodev"
	//     environment:
	//       XDG_CACHE_HOME: /home/node/.openclaw/cache
	// 0 things left to do
}

// A rule of one's own is a function of a service.
func ExampleProject_Services() {
	files := fstest.MapFS{"opt/agent/compose.yaml": {Data: []byte(agent)}}
	p, err := compose.Load(context.Background(), compose.Options{FS: files, Files: []string{"/opt/agent/compose.yaml"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	check := harden.Each(harden.Info{ID: "ours.image_by_digest"}, p.Source(), func(_ context.Context, s compose.Service) (harden.Verdict, error) {
		return harden.Fail(harden.Finding{Message: s.Image + " is not given by digest"}), nil
	})
	fmt.Println(harden.Evaluate(context.Background(), nil, check, 0).Findings[0].Message)
	// Output: ghcr.io/openclaw/openclaw:latest is not given by digest
}
