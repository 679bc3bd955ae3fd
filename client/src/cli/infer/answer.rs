//! An answer as a table: one line a row, one column an output.

use serde_json::Value;

use crate::api::OutputTensor;
use crate::cli::table::{Side, Table};

/// Values of a row that are shown; more are counted.
const VALUES_SHOWN: usize = 10;
/// Characters of a text that are shown.
const TEXT_CHARS_SHOWN: usize = 60;

/// The outputs side by side. JSON has every value exactly; a table shows six digits, and of a
/// long row its beginning and its length. Rows are counted from `first_row`.
///
/// # Errors
/// An output whose data does not fit its shape is named.
pub(super) fn table(outputs: &[OutputTensor], first_row: u64) -> Result<String, String> {
    let columns: Vec<Vec<String>> = outputs.iter().map(rows).collect::<Result<_, _>>()?;
    let headings = outputs
        .iter()
        .map(|output| (output.name.clone(), Side::Left));
    let mut table = Table::new(
        [("ROW".to_owned(), Side::Right)]
            .into_iter()
            .chain(headings),
    );
    let longest = columns.iter().map(Vec::len).max().unwrap_or(0);
    for row in 0..longest {
        let mut cells = vec![(first_row + row as u64).to_string()];
        // Outputs of one request can have different numbers of rows.
        let cell = |column: &Vec<String>| column.get(row).cloned().unwrap_or_default();
        cells.extend(columns.iter().map(cell));
        table.row(cells);
    }
    Ok(table.render())
}

/// One cell for each row of an output.
fn rows(output: &OutputTensor) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    flatten(&output.data, &mut values);
    let product = output.shape.iter().try_fold(1u64, |a, b| a.checked_mul(*b));
    if product != Some(values.len() as u64) {
        return Err(format!(
            "the answer's output '{}' has {} values for shape {:?}",
            output.name,
            values.len(),
            output.shape
        ));
    }
    if values.is_empty() {
        return Ok(Vec::new());
    }
    // A scalar is one row. The product fits the values, so a row count does too.
    let rows = output.shape.first().map_or(1, |rows| *rows as usize);
    Ok(values.chunks(values.len() / rows).map(cell).collect())
}

fn flatten<'a>(data: &'a [Value], into: &mut Vec<&'a Value>) {
    for value in data {
        match value {
            Value::Array(inner) => flatten(inner, into),
            other => into.push(other),
        }
    }
}

fn cell(row: &[&Value]) -> String {
    let shown: Vec<String> = row.iter().take(VALUES_SHOWN).map(|v| short(v)).collect();
    let mut text = shown.join(", ");
    if row.len() > VALUES_SHOWN {
        text.push_str(&format!(", … ({} values)", row.len()));
    }
    text
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > TEXT_CHARS_SHOWN => {
            let cut: String = text.chars().take(TEXT_CHARS_SHOWN).collect();
            format!("{cut}…")
        }
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, six_digits)
        }
        other => other.to_string(),
    }
}

/// Six significant digits without trailing zeros: what an FP32 is good for, and readable.
fn six_digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    let size = rounded.abs();
    if size != 0.0 && !(1e-4..1e9).contains(&size) {
        format!("{rounded:e}")
    } else {
        rounded.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn output(name: &str, shape: &[u64], data: Value) -> OutputTensor {
        OutputTensor {
            name: name.into(),
            datatype: "FP32".into(),
            shape: shape.to_vec(),
            data: data.as_array().unwrap().clone(),
        }
    }

    #[test]
    fn rows_stand_in_lines_and_outputs_in_columns() {
        let outputs = [
            output("p", &[2, 2], json!([0.123456789, 1.0, 3e-8, 2])),
            output("label", &[2, 1], json!([["ok"], ["failure"]])),
        ];
        let wanted = "\
ROW  p            label
  0  0.123457, 1  ok
  1  3e-8, 2      failure
";
        assert_eq!(table(&outputs, 0).unwrap(), wanted);
    }

    #[test]
    fn long_rows_are_cut_and_counted() {
        let data: Vec<u32> = (0..64).collect();
        let text = table(&[output("pixels", &[1, 64], json!(data))], 0).unwrap();
        assert!(text.contains("8, 9, … (64 values)"), "{text}");
        let long = "x".repeat(100);
        let text = table(&[output("t", &[1], json!([long]))], 0).unwrap();
        assert!(text.ends_with("xx…\n"), "{text}");
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused_and_empty_ones_are_not() {
        let wrong = table(&[output("p", &[2, 2], json!([1, 2, 3]))], 0).unwrap_err();
        assert_eq!(
            wrong,
            "the answer's output 'p' has 3 values for shape [2, 2]"
        );
        assert!(table(&[output("p", &[u64::MAX, 2], json!([1]))], 0).is_err());
        assert_eq!(
            table(&[output("p", &[0, 4], json!([]))], 0).unwrap(),
            "ROW  p\n"
        );
        let scalar = table(&[output("p", &[], json!([7]))], 4).unwrap();
        assert_eq!(scalar, "ROW  p\n  4  7\n");
    }
}
