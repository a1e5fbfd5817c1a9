package match

import (
	"encoding/json"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// parseBytesPerCost converts the parse of data to units of cost (measured: 4 to 70 ns
// a byte, a unit is about 100 ns).
const parseBytesPerCost = 2

// variables binds an event to the names that filters use. Time and data are parsed
// on first use and once per event; what can't be parsed is an error value, so that
// only the filters that depend on it fail.
type variables struct {
	ev     *Input
	time   any
	data   any
	parsed int // how often data was parsed
	// parseCost is what parsing data cost and no budget has paid yet.
	parseCost uint64
}

var _ cel.Activation = (*variables)(nil)

func (v *variables) reset(ev *Input) { *v = variables{ev: ev} }

// Parent implements cel.Activation.
func (*variables) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case "type":
		return v.ev.Type, true
	case "source":
		return v.ev.Source, true
	case "subject":
		return v.ev.Subject, true
	case "id":
		return v.ev.ID, true
	case "time":
		return v.parseTime(), true
	case "datacontenttype":
		return v.ev.DataContentType, true
	case "tenant":
		return v.ev.Tenant, true
	case "partitionkey":
		return v.ev.PartitionKey, true
	case "ext":
		return v.ev.Extensions, true
	case "data":
		return v.parseData(), true
	default:
		return nil, false
	}
}

func (v *variables) parseTime() any {
	if v.time == nil {
		t, err := time.Parse(time.RFC3339, v.ev.Time)
		switch {
		case v.ev.Time == "":
			v.time = types.NewErr("time_not_set: the event has no time")
		case err != nil:
			v.time = types.NewErr("time_not_set: the event's time is not RFC 3339")
		default:
			v.time = types.Timestamp{Time: t}
		}
	}
	return v.time
}

// parseData parses by content, not by datacontenttype: many producers say text/plain
// and send JSON. Numbers become doubles.
func (v *variables) parseData() any {
	if v.parsed == 0 {
		v.parsed++
		v.parseCost += uint64(len(v.ev.Data)) / parseBytesPerCost
		var parsed any
		switch err := json.Unmarshal(v.ev.Data, &parsed); {
		case err != nil:
			v.data = types.NewErr("data_not_json: %v", err)
		case parsed == nil:
			v.data = types.NullValue
		default:
			v.data = parsed
		}
	}
	return v.data
}

// owed returns the cost of parsing that is still to be paid, and forgets it.
func (v *variables) owed() uint64 {
	cost := v.parseCost
	v.parseCost = 0
	return cost
}
