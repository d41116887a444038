// House rules: classes that age, models where they are loaded, cards that may cool down, and a quota for each tenant.
//
// This file is the seam to the router; the rules are in rules.go and settings.go. Bindings are generated into gen by `make`.
package main

import (
	"fmt"
	"strconv"

	"policy/gen/admission"
	answeradmission "policy/gen/export_admission"
	answerfeedback "policy/gen/export_feedback"
	answerlifecycle "policy/gen/export_lifecycle"
	answerpriority "policy/gen/export_priority"
	answerrouting "policy/gen/export_routing"
	"policy/gen/feedback"
	"policy/gen/log"
	"policy/gen/priority"
	"policy/gen/queue"
	"policy/gen/routing"
	"policy/gen/state"
	"policy/gen/types"
	wit "policy/gen/wit/types"
	_ "policy/gen/wit_exports"
)

// They live as long as this guest does. What must survive a new version or a restart is in state instead.
var (
	settings = defaults()
	heat     = Heat{}
)

func init() {
	answerlifecycle.Configure = configure
	answeradmission.Admit = admit
	answerpriority.Prioritize = prioritize
	answerrouting.Route = route
	answerfeedback.Observe = observe
}

// A component has no main.
func main() {}

func configure(json string) wit.Result[wit.Unit, string] {
	parsed, err := parse(json)
	if err != nil {
		return wit.Err[wit.Unit, string](err.Error())
	}
	settings, heat = parsed, Heat{}
	return wit.Ok[wit.Unit, string](wit.Unit{})
}

func admit(job types.Job, _ types.Load) admission.AdmissionDecision {
	quota := settings.QuotaS
	if quota == 0 {
		return admission.MakeAdmissionDecisionAdmit()
	}
	tenant := tenantName(job.Tenant)
	used, _ := strconv.ParseFloat(state.Get(usedKey(tenant)).SomeOr("0"), 64)
	if used < quota {
		return admission.MakeAdmissionDecisionAdmit()
	}
	return admission.MakeAdmissionDecisionReject(admission.Rejection{
		Status:      429,
		RetryAfterS: wit.Some[uint32](60),
		Reason:      fmt.Sprintf("%s has used %d of %d GPU seconds", tenant, int64(used), int64(quota)),
	})
}

func prioritize(job types.Job) priority.PriorityDecision {
	points, reason := score(job)
	return priority.PriorityDecision{Score: points, AgeingPerSecond: settings.AgeingPerSecond, Reason: reason}
}

func route(job types.Job, candidates []types.Candidate) routing.RouteDecision {
	heat.note(candidates, &settings)
	return decide(job, candidates, heat, &settings)
}

func observe(outcomes []feedback.Outcome) {
	if settings.QuotaS == 0 {
		return
	}
	window := wit.Some(uint32(settings.QuotaWindowS * 1000))
	for _, outcome := range outcomes {
		key := usedKey(tenantName(outcome.Tenant))
		// The time to live counts from the first job of a window, so the sum is forgotten when the window ends.
		if counted := state.Increment(key, float64(outcome.RunMs)/1000, window); counted.IsErr() {
			log.Write(log.LevelWarn, fmt.Sprintf("%s is not counted: refusal %d", key, counted.Err()))
		}
	}
}

// By name, because an index means something else after a restart.
func usedKey(tenant string) string {
	return "used/" + tenant
}

func tenantName(tenant uint32) string {
	return queue.TenantName(tenant).SomeOr(fmt.Sprintf("tenant %d", tenant))
}
