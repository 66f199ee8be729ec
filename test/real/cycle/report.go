package main

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints what was seen; its error says that not all was as it should be.
func (l *lab) report() error {
	loops, installs, err := l.judge()
	if err != nil {
		return err
	}
	fmt.Fprintln(l.out)
	w := tabwriter.NewWriter(l.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "AFTER THE DELETE OF\tMACHINE\tMAC ADDRESS\tTOOK\tDEPLOYMENT\tBOOTS\tOFFER\tACK")
	for _, r := range l.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.what, r.machine, r.mac, r.took.Round(100*time.Millisecond), r.deployment, len(r.boots),
			leads(r.boots, func(b boot) lead { return b.Offer }), leads(r.boots, func(b boot) lead { return b.Ack }))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(l.out)
	for _, t := range l.times {
		fmt.Fprintf(l.out, "%-80s %s\n", t.what, t.took.Round(100*time.Millisecond))
	}
	fmt.Fprintf(l.out, "\n%s: %d boots into the loop, %d into an installer; %d machines came back; %d deviations; %s in all, seed %d\n",
		filepath.Base(l.Plunder), loops, installs, len(l.rows), len(l.deviations), time.Since(l.began).Round(time.Second), l.Seed)
	if len(l.deviations) == 0 {
		return nil
	}
	return fmt.Errorf("%d deviations; logs, boots and state are in %s:\n%s", len(l.deviations), l.dir, strings.Join(l.deviations, "\n"))
}

// leads says where boots led, each script once.
func leads(boots []boot, which func(boot) lead) string {
	var said []string
	for _, b := range boots {
		a := which(b)
		if s := path.Base(a.File) + " -> " + a.To; !slices.Contains(said, s) {
			said = append(said, s)
		}
	}
	return strings.Join(said, ", ")
}
