"""Everything that is found in a file, in the order of its lines."""

from keras.src.migration.attributes import attribute_findings
from keras.src.migration.finding import Finding
from keras.src.migration.layers import layer_findings
from keras.src.migration.layers import layers_of
from keras.src.migration.sources import Project
from keras.src.migration.sources import Source
from keras.src.migration.steps import last_step_findings
from keras.src.migration.training import training_findings


def findings(source: Source, project: Project) -> list[Finding]:
    """The findings in a file.

    Args:
        source: `Source` of the file.
        project: `Project` of all files that are looked at.

    Returns:
        List of `Finding`.
    """
    layers = layers_of(source, project)
    found = [
        *layer_findings(layers),
        *attribute_findings(source, project, layers),
        *training_findings(source, project),
        *last_step_findings(source, layers),
    ]
    return sorted(found, key=lambda finding: (finding.line, finding.name))
