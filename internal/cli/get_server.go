package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/gopacket/gopacket/macs"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// getClient makes its client when it is first asked for.
type getClient struct{ client *server }

func (o *getOptions) server(ctx context.Context) (*server, error) {
	if o.client.client == nil {
		client, err := o.f.Server(ctx, false)
		if err != nil {
			return nil, err
		}
		o.client.client = client
	}
	return o.client.client, nil
}

func (c *getClient) close() error {
	if c.client == nil {
		return nil
	}
	return c.client.Close()
}

func unleasedResource() resource {
	return resource{
		name:    "unleased",
		aliases: []string{"ul"},
		short:   "Show machines that plunder has seen and that nobody uses",
		long: `Show machines that plunder has seen and that nobody uses, oldest known first. A
blank machine is told to reboot until it is needed, so it is seen again and
again; one that was not seen for ten minutes is probably gone.`,
		example: `  capplunder get unleased
  capplunder get unleased --watch`,
		fetch: func(ctx context.Context, o *getOptions) (list, error) {
			client, err := o.server(ctx)
			if err != nil {
				return list{}, err
			}
			leases, now, err := client.Unleased(ctx)
			if err != nil {
				return list{}, err
			}
			l := list{kind: "UnleasedList", columns: []ui.Column{{Name: "MAC ADDRESS"}, {Name: "HARDWARE VENDOR"}, {Name: "TIME SEEN"}, {Name: "TIME SINCE"}}}
			for _, lease := range leases {
				since := max(0, now.Sub(lease.Time)).Round(time.Second)
				l.items = append(l.items, item{
					// That a machine is seen again is no news.
					name: "unleased/" + lease.MAC, key: lease.MAC,
					cells: []string{lease.MAC, vendor(lease.MAC), lease.Time.Local().Format(time.ANSIC), since.String()},
					object: struct {
						MAC          string    `json:"mac"`
						Vendor       string    `json:"vendor,omitempty"`
						TimeSeen     time.Time `json:"timeSeen"`
						SecondsSince int       `json:"secondsSince"`
					}{lease.MAC, vendor(lease.MAC), lease.Time, int(since / time.Second)},
				})
			}
			return l, nil
		},
	}
}

func leasesResource() resource {
	return resource{
		name:    "leases",
		aliases: []string{"lease"},
		short:   "Show addresses that plunder's DHCP server has given",
		example: `  capplunder get leases`,
		fetch: func(ctx context.Context, o *getOptions) (list, error) {
			client, err := o.server(ctx)
			if err != nil {
				return list{}, err
			}
			leases, now, err := client.Leases(ctx)
			if err != nil {
				return list{}, err
			}
			l := list{kind: "LeaseList", columns: []ui.Column{{Name: "MAC ADDRESS"}, {Name: "HARDWARE VENDOR"}, {Name: "EXPIRES"}, {Name: "EXPIRES IN"}}}
			for _, lease := range leases {
				left := "expired"
				if lease.Time.After(now) {
					left = lease.Time.Sub(now).Round(time.Second).String()
				}
				l.items = append(l.items, item{
					name: "lease/" + lease.MAC, key: lease.MAC, mark: lease.Time.String(),
					cells: []string{lease.MAC, vendor(lease.MAC), lease.Time.Local().Format(time.ANSIC), left},
					object: struct {
						MAC     string    `json:"mac"`
						Vendor  string    `json:"vendor,omitempty"`
						Expires time.Time `json:"expires"`
					}{lease.MAC, vendor(lease.MAC), lease.Time},
				})
			}
			return l, nil
		},
	}
}

// deployment is a deployment without its secrets.
type deployment struct {
	MAC        string          `json:"mac"`
	BootConfig string          `json:"bootConfig"`
	Config     wire.HostConfig `json:"config"`
}

func deploymentsResource() resource {
	return resource{
		name:    "deployments",
		aliases: []string{"deployment", "deploy"},
		short:   "Show what plunder makes of which machine",
		long:    `Show what plunder makes of which machine. Passwords are never shown.`,
		example: `  capplunder get deployments
  capplunder get deployments -o yaml`,
		fetch: func(ctx context.Context, o *getOptions) (list, error) {
			client, err := o.server(ctx)
			if err != nil {
				return list{}, err
			}
			deployments, err := client.Deployments(ctx)
			if err != nil {
				return list{}, err
			}
			l := list{kind: "DeploymentList", columns: []ui.Column{{Name: "MAC ADDRESS"}, {Name: "BOOT CONFIG"}, {Name: "HOST NAME"}, {Name: "ADDRESS"}, {Name: "HARDWARE VENDOR", Wide: true}}}
			for _, d := range deployments.Deployments {
				l.items = append(l.items, item{
					name: "deployment/" + d.MAC, key: d.MAC, mark: fmt.Sprint(d.BootConfigName, d.Config.Hostname, d.Config.Address),
					cells:  []string{d.MAC, d.BootConfigName, d.Config.Hostname, d.Config.Address, vendor(d.MAC)},
					object: deployment{d.MAC, d.BootConfigName, d.Config.Redacted()},
				})
			}
			return l, nil
		},
	}
}

func bootConfigsResource() resource {
	return resource{
		name:    "bootconfigs",
		aliases: []string{"bootconfig", "bc"},
		short:   "Show what plunder can install",
		long: `Show what plunder can install. The name goes into spec.deploymentType of a
PlunderMachine.`,
		example: `  capplunder get bootconfigs
  capplunder get bootconfigs -o name`,
		fetch: func(ctx context.Context, o *getOptions) (list, error) {
			client, err := o.server(ctx)
			if err != nil {
				return list{}, err
			}
			config, err := client.ServerConfig(ctx)
			if err != nil {
				return list{}, err
			}
			l := list{kind: "BootConfigList", columns: []ui.Column{{Name: "NAME"}, {Name: "TYPE"}, {Name: "KERNEL"}, {Name: "INITRD"}, {Name: "COMMAND LINE", Wide: true}}}
			for i, b := range config.BootConfigs {
				l.items = append(l.items, item{
					// v0.5 can have two of one name.
					name: "bootconfig/" + b.ConfigName, key: fmt.Sprint(b.ConfigName, i), mark: fmt.Sprint(b),
					cells:  []string{b.ConfigName, b.Type(), b.KernelPath, b.InitrdPath, b.Cmdline},
					object: b,
				})
			}
			return l, nil
		},
	}
}

// vendor is who the first three bytes of a MAC address belong to, "" when nobody knows.
func vendor(mac string) string {
	prefix, err := hex.DecodeString(strings.ReplaceAll(mac, ":", ""))
	if err != nil || len(prefix) < 3 {
		return ""
	}
	return macs.ValidMACPrefixMap[[3]byte(prefix)]
}
