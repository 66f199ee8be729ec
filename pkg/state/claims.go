package state

import "github.com/plunder-app/capplunder/pkg/capi"

// claims knows which machine holds which MAC and which address, so that neither
// is ever given twice.
type claims struct {
	macs, addresses map[string]capi.Key
	held            map[capi.Key]claim
}

type claim struct{ mac, address string }

func newClaims(records []capi.Record) *claims {
	c := &claims{
		macs:      make(map[string]capi.Key, len(records)),
		addresses: make(map[string]capi.Key, len(records)),
		held:      make(map[capi.Key]claim, len(records)),
	}
	for _, r := range records {
		c.put(r)
	}
	return c
}

// check returns a *TakenError if another machine holds what r wants.
func (c *claims) check(r capi.Record) error {
	if holder, ok := c.macs[r.MAC]; ok && r.MAC != "" && holder != r.Key {
		return &TakenError{Key: r.Key, Holder: holder, What: "MAC", Value: r.MAC}
	}
	if holder, ok := c.addresses[r.Address]; ok && r.Address != "" && holder != r.Key {
		return &TakenError{Key: r.Key, Holder: holder, What: "address", Value: r.Address}
	}
	return nil
}

// put replaces what r's machine held.
func (c *claims) put(r capi.Record) {
	c.drop(r.Key)
	c.held[r.Key] = claim{mac: r.MAC, address: r.Address}
	if r.MAC != "" {
		c.macs[r.MAC] = r.Key
	}
	if r.Address != "" {
		c.addresses[r.Address] = r.Key
	}
}

// drop forgets what a machine held.
func (c *claims) drop(key capi.Key) {
	old := c.held[key]
	delete(c.held, key)
	if c.macs[old.mac] == key {
		delete(c.macs, old.mac)
	}
	if c.addresses[old.address] == key {
		delete(c.addresses, old.address)
	}
}

// checkGiven returns an error for everything in which the given machine differs
// from what its record says was already given to it. A machine without hardware
// may change in any way but one: its record is kept with its PlunderMachine.
func checkGiven(m *capi.Machine, r capi.Record) []error {
	var errs []error
	differ := func(kind string, key capi.Key, field, recorded, given string) {
		if given != "" && recorded != "" && given != recorded {
			errs = append(errs, &ClaimedError{Kind: kind, Key: key, Field: field, Old: recorded, New: given, Machine: r.Key})
		}
	}
	differ("Machine", m.Key, "spec.infrastructureRef", r.PlunderMachine.String(), m.Infra.Key.String())
	if !r.Claimed() {
		return errs
	}
	differ("Machine", m.Key, "spec.providerID", r.ProviderID, m.ProviderID)
	differ("PlunderMachine", m.Infra.Key, "spec.macaddress", r.MAC, m.Infra.Spec.MACAddress)
	differ("PlunderMachine", m.Infra.Key, "spec.ipaddress", r.Address, m.Infra.Spec.IPAddress)
	differ("PlunderMachine", m.Infra.Key, "spec.providerID", r.ProviderID, m.Infra.Spec.ProviderID)
	return errs
}
