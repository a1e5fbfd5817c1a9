package broker

// DefaultPrefix stands before every topic, group and transactional id when
// [Config.Prefix] is empty.
const DefaultPrefix = "postrider."

// Topics holds the full names of the gateway's topics, prefix included.
type Topics struct {
	Events     string // accepted events
	Pages      string // parts of very wide events
	Deliveries string // one event for one endpoint
	Attempts   string // outcomes, partitioned like Deliveries
	Lanes      string // parked offsets and lane state, partitioned like Deliveries
	Schedule   string // the timing wheel: partition = level + WheelLevels*shard
	Decisions  string // why an event did not become a delivery
	Dead       string // exhausted and expired deliveries
	Rejected   string // records that can't be read
	Registry   string // tenants, endpoints, subscriptions: exactly one partition
	Jobs       string // replay jobs and their progress
	Audit      string // who changed what
}

// Names returns the topic names under prefix; an empty prefix means
// [DefaultPrefix].
func Names(prefix string) Topics {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return Topics{
		Events:     prefix + "events",
		Pages:      prefix + "pages",
		Deliveries: prefix + "deliveries",
		Attempts:   prefix + "attempts",
		Lanes:      prefix + "lanes",
		Schedule:   prefix + "schedule",
		Decisions:  prefix + "decisions",
		Dead:       prefix + "dead",
		Rejected:   prefix + "rejected",
		Registry:   prefix + "registry",
		Jobs:       prefix + "jobs",
		Audit:      prefix + "audit",
	}
}

// All returns every topic name, in the order of the fields.
func (t Topics) All() []string {
	return []string{
		t.Events, t.Pages, t.Deliveries, t.Attempts, t.Lanes, t.Schedule,
		t.Decisions, t.Dead, t.Rejected, t.Registry, t.Jobs, t.Audit,
	}
}
