package event

import (
	"strconv"
	"time"
)

func strconvSeconds(d time.Duration) []byte {
	return strconv.AppendFloat(nil, float64(d.Round(time.Millisecond).Milliseconds())/1000, 'f', -1, 64)
}
