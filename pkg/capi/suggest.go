package capi

import (
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
)

// didYouMean is ` (did you mean "x"?)` for the closest of the words, or "" when
// more than a third of the letters would have to change.
func didYouMean(s string, words []string) string {
	best, distance := "", len(s)/3+1
	for _, w := range words {
		if d := levenshtein.ComputeDistance(strings.ToLower(s), strings.ToLower(w)); d < distance {
			best, distance = w, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}
