package capi

import (
	"fmt"
	"strings"
)

// didYouMean is ` (did you mean "x"?)` for the closest of the words, or "" when
// more than a third of the letters would have to change.
func didYouMean(s string, words []string) string {
	best, distance := "", len(s)/3+1
	for _, w := range words {
		if d := editDistance(strings.ToLower(s), strings.ToLower(w), distance); d < distance {
			best, distance = w, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// editDistance is the Levenshtein distance of a and b, or limit+1 when it is
// sure to be more than limit.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
