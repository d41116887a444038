// Interactive jobs first, on cool cards that have the models.
package main

import (
	"encoding/json"
	"sort"
	"strings"

	answerlifecycle "policy/gen/export_lifecycle"
	answerpriority "policy/gen/export_priority"
	answerrouting "policy/gen/export_routing"
	"policy/gen/priority"
	"policy/gen/routing"
	"policy/gen/types"
	wit "policy/gen/wit/types"
	_ "policy/gen/wit_exports"
)

// A card this hot comes last. Lives as long as this guest does, as every variable of a package does.
var hotC = 83.0

func init() {
	answerlifecycle.Configure = configure
	answerpriority.Prioritize = prioritize
	answerrouting.Route = route
}

// A component has no main.
func main() {}

// configure takes the [policy.settings] table of the router's configuration, as JSON. An error is shown to the operator, and
// this version does not serve.
func configure(text string) wit.Result[wit.Unit, string] {
	settings := struct {
		HotC *float64 `json:"hot_c"`
	}{&hotC}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&settings); err != nil {
		return wit.Err[wit.Unit, string](err.Error())
	}
	return wit.Ok[wit.Unit, string](wit.Unit{})
}

// prioritize answers with the effective priority = score + ageing x seconds waited: with ageing, nothing waits for ever.
func prioritize(job types.Job) priority.PriorityDecision {
	score, reason := 100.0, "standard"
	switch job.Class {
	case types.JobClassInteractive:
		score, reason = 200, "interactive"
	case types.JobClassBatch:
		score, reason = 0, "batch"
	}
	return priority.PriorityDecision{Score: score, AgeingPerSecond: 1, Reason: reason}
}

// route answers with rows of candidates, best first. Instances that cannot run the job are not among them.
func route(job types.Job, candidates []types.Candidate) routing.RouteDecision {
	rows := make([]uint32, 0, len(candidates))
	for i := range candidates {
		if candidates[i].FreeSlots > 0 {
			rows = append(rows, uint32(i))
		}
	}
	if len(rows) == 0 {
		// The router asks again earlier when an instance changes.
		return routing.RouteDecision{Answer: routing.MakeRouteAnswerHold(1_000), Reason: "no instance has room"}
	}
	sort.SliceStable(rows, func(a, b int) bool {
		return rank(&job, &candidates[rows[a]]) < rank(&job, &candidates[rows[b]])
	})
	reason := "cool"
	if hasModels(&job, &candidates[rows[0]]) {
		reason = "models loaded"
	}
	return routing.RouteDecision{Answer: routing.MakeRouteAnswerRanked(rows), Reason: reason}
}

// rank is lower for what is better. A temperature that is not known counts as cool.
func rank(job *types.Job, candidate *types.Candidate) uint64 {
	rank := uint64(candidate.Running) + uint64(candidate.Pending)
	if !hasModels(job, candidate) {
		rank += 1 << 40
	}
	if float64(candidate.TemperatureC.SomeOr(0)) >= hotC {
		rank += 1 << 41
	}
	return rank
}

func hasModels(job *types.Job, candidate *types.Candidate) bool {
	return job.Models > 0 && candidate.ModelsResident >= job.Models
}
