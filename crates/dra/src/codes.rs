//! The codes of this crate.

/// Code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "dra.attribute.unfit",
        "A value does not fit into an attribute of the DRA API and is left out.",
        "Nothing to do; the full value is in the inventory.",
    ),
    (
        "dra.class.full",
        "A class cannot name all GPUs that NVIDIA's driver gives out: the API limits its selector. It gives out those that it names.",
        "Declare several classes, by model, zone or jurisdiction.",
    ),
    (
        "dra.class.too-long",
        "The selector of a class is longer than the API allows.",
        "Split the class by model or by jurisdiction.",
    ),
    (
        "dra.class.unknown-jurisdiction",
        "A class names a jurisdiction that is not declared.",
        "Declare it, or correct the class.",
    ),
    (
        "dra.gpu.conflict",
        "What is known of a GPU contradicts itself, so it is kept out.",
        "`bailiwick why MACHINE` tells the two sides.",
    ),
    (
        "dra.gpu.duplicate",
        "The same GPU is shown twice, so neither is published.",
        "`bailiwick why MACHINE` names the other machine.",
    ),
    (
        "dra.gpu.mig-mode",
        "A GPU's MIG mode is on, so it has no whole to give out, and no partitions of it can be: none are declared that it has, or the API server keeps no counters.",
        "Declare `spec.partitions` of the Machine, or switch MIG mode off.",
    ),
    (
        "dra.gpu.mig-unsettled",
        "A GPU's MIG mode waits for a reset, or cannot be read: neither the whole of it nor partitions are given out.",
        "Reset the GPU or restart its host; `bailiwick-agent probe -o json` shows its mode.",
    ),
    (
        "dra.gpu.no-identity",
        "A GPU has neither serial number nor UUID, so it cannot be told from others.",
        "Update the BMC's firmware.",
    ),
    (
        "dra.machine.no-jurisdiction",
        "The machine's site names a jurisdiction that is not declared.",
        "Declare it, or correct the site.",
    ),
    ("dra.machine.no-site", "The machine's site is not declared.", "Declare it, or correct the machine."),
    (
        "dra.name.duplicate",
        "Two objects would have the same name, so neither is published.",
        "Rename one of the two.",
    ),
    (
        "dra.nvidia.no-taint-rules",
        "NVIDIA's driver gives a machine's GPUs out, and the API server serves no taint rules: what got worse taints nothing. A GPU that fails leaves the classes all the same.",
        "Switch the gate DRADeviceTaintRules on, or use Kubernetes 1.37, which has it on.",
    ),
    (
        "dra.nvidia.unverified",
        "What is published to a directory names no GPUs of NVIDIA's driver: whether their Nodes are what they say is known of a cluster alone.",
        "Publish to the cluster too (`publish-cluster`).",
    ),
    (
        "dra.partition.mode-off",
        "Partitions are declared of a machine, and the MIG mode of one of its GPUs is off: it is given out whole.",
        "Switch it on (`nvidia-smi -mig 1`), or take `spec.partitions` out of the Machine.",
    ),
    (
        "dra.partition.too-many-counters",
        "A GPU's partitions would need more counters than the API allows.",
        "Switch MIG mode off to give its GPUs out whole; tell us of the model.",
    ),
    (
        "dra.partition.unknown-profile",
        "A machine declares a MIG profile, or a place for one, that one of its GPUs has not.",
        "Correct `spec.partitions` of the Machine; `bailiwick-agent probe -o json` shows what its GPUs have.",
    ),
    (
        "plugin.api-server.client",
        "The agent cannot make a client for the API server.",
        "Read the cause in the agent's log.",
    ),
    (
        "plugin.api-server.credential",
        "The certificate, key or token with which the agent asks the API server cannot be used.",
        "Compare the agent's kubeconfig or service account with the base cluster's.",
    ),
    (
        "plugin.cdi.failed",
        "The CDI specification of a claim cannot be written or removed, so its pod does not start or end.",
        "Make the directory that the container runtime reads, `/var/run/cdi`, before it starts; free space there.",
    ),
    (
        "plugin.checkpoint.busy",
        "Other calls or another agent of the host held the checkpoint's lock for too long. Nothing was handed out.",
        "Nothing to do unless it lasts: then the disk of the kubelet's directory is slow, or an agent hangs.",
    ),
    (
        "plugin.checkpoint.corrupted",
        "The plugin's checkpoint could not be believed, or was gone. It was set aside and made anew from CDI specifications; GPUs that those do not account for are scrubbed before anybody gets them.",
        "Nothing to do; look at the host's disk.",
    ),
    (
        "plugin.checkpoint.failed",
        "The plugin cannot read or write what claims hold, so it hands out nothing.",
        "Free space on the disk of the kubelet's directory; the text says what failed.",
    ),
    (
        "plugin.claim.bad-uid",
        "The kubelet named a claim with a UID that is none.",
        "Nothing the agent can mend; see what calls its socket.",
    ),
    ("plugin.claim.gone", "The claim was deleted.", "Nothing to do: its pod goes too."),
    (
        "plugin.claim.not-allocated",
        "The claim has no devices, or none any more.",
        "Nothing to do: the scheduler gives it some.",
    ),
    (
        "plugin.claim.orphaned",
        "A claim that is gone or was allocated anew still holds devices on its host, and the kubelet has not given it back: its containers may still live.",
        "Wait until its pod has ended on the node. If the kubelet has lost what it knew of it, end what is left of the pod and restart the host.",
    ),
    (
        "plugin.claim.reallocated",
        "The claim was given other devices while it still holds some here.",
        "Nothing to do: those are given back first.",
    ),
    (
        "plugin.claim.released",
        "A claim was given back while it was being prepared.",
        "Nothing to do: the kubelet asks again if it needs it.",
    ),
    (
        "plugin.claim.replaced",
        "A claim of that name was made anew.",
        "Nothing to do: the kubelet asks for the new one.",
    ),
    (
        "plugin.claim.unread",
        "The API server did not answer what a claim was given.",
        "See whether the agent reaches the API server and may `get` resourceclaims.",
    ),
    ("plugin.claim.without-devices", "The claim has no device of our driver.", "Nothing to do."),
    (
        "plugin.config.foreign",
        "A claim gives a device of ours parameters of another driver, which would be ignored.",
        "Take them out of the claim or class, or name the requests they are for.",
    ),
    (
        "plugin.config.invalid",
        "A claim or class gives parameters that the driver does not know.",
        "Compare them with what the text names; there are none but `apiVersion` and `kind` so far.",
    ),
    (
        "plugin.device.admin-access",
        "A claim asks for administrative access, which would pass by the permit.",
        "Ask for the device without it.",
    ),
    (
        "plugin.device.gate-closed",
        "A device is not handed out now; the text says why.",
        "`bailiwick why MACHINE` tells what closed the gate.",
    ),
    (
        "plugin.device.held",
        "A device is still held by another claim.",
        "Wait until that claim's pod has ended on the node; the text names it.",
    ),
    (
        "plugin.device.probe-stale",
        "The driver has told nothing for so long that nobody knows how the device is, so it is not handed out.",
        "Look at the host: `nvidia-smi` hangs too if the driver does. The kernel's log says why; a driver that hangs needs a restart of the host.",
    ),
    (
        "plugin.device.unaccounted",
        "The plugin's checkpoint was lost, and with it who had what. A GPU is handed out again once all of it was scrubbed that nobody is known to hold.",
        "Nothing to do unless it lasts: the text says what the scrub waits for.",
    ),
    (
        "plugin.device.unknown",
        "The claim was given a device that is not on this node.",
        "Nothing to do if the GPU was just taken out; otherwise `bailiwick why MACHINE`.",
    ),
    (
        "plugin.device.unscrubbed",
        "A device is not scrubbed yet after its last claim.",
        "Nothing to do unless it lasts: the text says what the scrub waits for.",
    ),
    (
        "plugin.legacy-runtime",
        "Something else on the host hands out GPUs: a container runtime, a hook or a device plugin of NVIDIA's. Whoever asks that way passes by claims, permits and scrubs.",
        "Take it off the host, or take the host out of the cell; the text names the file.",
    ),
    (
        "plugin.part.failed",
        "A MIG instance that a claim was given could not be made. Its place stays reserved for the claim.",
        "The text says why; `bailiwick-agent probe` shows the GPU's MIG mode and what is on it.",
    ),
    (
        "plugin.part.foreign",
        "At the very place of a part that a claim was given stands a MIG instance that the agent did not make. Its place stays reserved for the claim.",
        "Find out who made it and destroy it (`nvidia-smi mig -dci`, `-dgi`); the kubelet asks again.",
    ),
    (
        "plugin.part.under-way",
        "Making a MIG instance takes longer than the kubelet waits, or waits for a scrub of the same GPU.",
        "Nothing to do: the kubelet asks again.",
    ),
    (
        "plugin.registration.refused",
        "The kubelet did not take the plugin's registration; the text says why.",
        "Compare the kubelet's version with what the agent needs: Kubernetes 1.36 or newer.",
    ),
    (
        "plugin.scrub.failed",
        "A device could not be scrubbed and stays reserved. It is tried again.",
        "End the process that still uses it, or reset the GPU; the text says which.",
    ),
    (
        "plugin.scrub.records",
        "The records of scrubs cannot be read or written. What was scrubbed stays reserved, for nobody could tell later that it was.",
        "Free space on the disk of the kubelet's directory; the text says what failed.",
    ),
    (
        "plugin.scrub.under-way",
        "A scrub takes longer than the kubelet waits.",
        "Nothing to do: the kubelet asks again.",
    ),
    (
        "plugin.socket.failed",
        "The plugin cannot listen on its socket.",
        "See who may write in the kubelet's directory.",
    ),
    (
        "plugin.socket.in-use",
        "Another process listens on the plugin's socket.",
        "Give each agent of a node its own instance name.",
    ),
    (
        "plugin.socket.path-too-long",
        "The path of a socket is longer than 107 bytes.",
        "Give the agent a shorter instance name.",
    ),
    (
        "plugin.state.unusable",
        "The plugin's directory cannot be used.",
        "See who may write in the kubelet's directory.",
    ),
    ("plugin.stopping", "The agent was stopping.", "Nothing to do: the kubelet asks again."),
];
