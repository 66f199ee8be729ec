package translate

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// unknownContent is Disk.Content where the host does not let us look.
const unknownContent = "?"

// identity is a disk's WWN, serial number or model as ident of identityScript prints it.
// What is in that form stays as it is.
func identity(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == ' ' || r == '_':
			if !strings.HasSuffix(b.String(), "_") {
				b.WriteByte('_')
			}
		case r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(".:+-", r)):
			b.WriteRune(r)
		}
	}
	return strings.TrimSuffix(strings.TrimPrefix(b.String(), "_"), "_")
}

// mountNames is a list of mount points for people: sorted, each once, with what is not
// plain text percent-encoded.
func mountNames(escaped string) string {
	var names []string
	for e := range strings.SplitSeq(escaped, ",") {
		if e == "" {
			continue
		}
		var b strings.Builder
		for _, c := range []byte(unescape(e)) {
			if c <= ' ' || c > '~' || c == ',' || c == '%' {
				fmt.Fprintf(&b, "%%%02X", c)
			} else {
				b.WriteByte(c)
			}
		}
		names = append(names, b.String())
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}

// unescape undoes %040 and the like, octal numbers of bytes.
func unescape(s string) string {
	octal := func(c byte) bool { return c >= '0' && c <= '7' }
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// addContent adds what is on a device to the disk that the device is, or is a partition
// of. A disk's own line comes before those of its partitions.
func addContent(disks []capi.Disk, device, what string) {
	i := slices.IndexFunc(disks, func(d capi.Disk) bool { return d.Device == device })
	whole := i >= 0
	if !whole {
		i = slices.IndexFunc(disks, func(d capi.Disk) bool { return partitionOf(device, d.Device) })
	}
	if i < 0 {
		return
	}
	var all []string
	if !whole && disks[i].Content != "" {
		all = strings.Split(disks[i].Content, ",")
	}
	for s := range strings.SplitSeq(what, ",") {
		// A protective table and the boot sector of a FAT look like a table of DOS.
		second := s == "dos" && (strings.Contains(what, "gpt") || strings.Contains(what, "vfat"))
		if s != unknownContent {
			s = identity(s)
		}
		if s != "" && !second && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	disks[i].Content = strings.Join(all, ",")
}

// partitionOf reports whether a device is a partition of a disk, by their names.
func partitionOf(device, disk string) bool {
	number, ok := strings.CutPrefix(device, disk)
	if ok && disk != "" && unicode.IsDigit(rune(disk[len(disk)-1])) {
		number, ok = strings.CutPrefix(number, "p")
	}
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}
