# The freestanding guests (tests/guests) where the processor runs their instructions, and does not interpret them: attacks on the devices once
# more, and those on the processor's own state and memory that fails, which need that.

tests/guests/run build blk_attack.elf vsock_attack.elf transport_attack.elf smp_race.elf vsock_race.elf fs.elf teardown.elf cpu_attack.elf >"$work/out" 2>&1
check "the guests ran" grep -q '^ok - cpu_attack: host: no descriptor is left over' "$work/out"
grep -E '^(ok|not ok|skip) - |^#.*not met' "$work/out" | sed -E 's/^(ok|not ok|skip) - /&in the lab: /'
