package host

import "slices"

// extents is a set of chunks by their numbers, as ranges in order that do not touch.
type extents []extent

// extent is a range of chunks; To is not in it any more.
type extent struct{ From, To int64 }

// first is the index of the first range that ends behind a chunk.
func (e extents) first(i int64) int {
	n, _ := slices.BinarySearchFunc(e, i, func(x extent, i int64) int {
		if x.To <= i {
			return -1
		}
		return 1
	})
	return n
}

func (e extents) has(i int64) bool {
	n := e.first(i)
	return n < len(e) && e[n].From <= i
}

// within is what of the set lies in a range.
func (e extents) within(from, to int64) extents {
	var out extents
	for _, x := range e[e.first(from):] {
		if x.From >= to {
			break
		}
		out = append(out, extent{max(x.From, from), min(x.To, to)})
	}
	return out
}

// cut is the set without a range.
func (e extents) cut(from, to int64) extents {
	if from >= to {
		return e
	}
	var out extents
	for _, x := range e {
		if x.From < min(x.To, from) {
			out = append(out, extent{x.From, min(x.To, from)})
		}
		if max(x.From, to) < x.To {
			out = append(out, extent{max(x.From, to), x.To})
		}
	}
	return out
}

// add is the set with a range.
func (e extents) add(from, to int64) extents {
	if from >= to {
		return e
	}
	var out extents
	for _, x := range e {
		if x.To < from || x.From > to {
			out = append(out, x)
			continue
		}
		from, to = min(from, x.From), max(to, x.To)
	}
	at, _ := slices.BinarySearchFunc(out, from, func(x extent, f int64) int { return int(min(max(x.From-f, -1), 1)) })
	return slices.Insert(out, at, extent{from, to})
}

func (e extents) count() int64 {
	var n int64
	for _, x := range e {
		n += x.To - x.From
	}
	return n
}
