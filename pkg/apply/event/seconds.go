package event

import (
	"strconv"
	"time"
)

func strconvSeconds(d time.Duration) []byte {
	return strconv.AppendFloat(nil, d.Round(time.Millisecond).Seconds(), 'f', -1, 64)
}
